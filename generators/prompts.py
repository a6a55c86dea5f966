"""Words only: templates, articles and the words that an edit changes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from .spec import Axis, SpecError

TEMPLATES = (
    "A photo of {a} {age} {race} {gender} {concept}",
    "A picture of {a} {age} {race} {gender} {concept}",
    "A portrait of {a} {age} {race} {gender} {concept}",
    "A photo of {a} {age} {race} {gender} {concept}, facing the camera, natural light",
)

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_ARTICLE = re.compile(r"\{a\}\s+([^\s{}]+)")
_CONSONANT_SOUND = re.compile(
    r"uni(?!n|m(?!od)|d(?!irect))|us[aeiu]|ut[eio]|ubiq|ukr|ukul|ur[aeiou]|eu|ewe|one\b|once\b|ouija", re.I
)
_VOWEL_SOUND = re.compile(r"[aeiou]|hour|honest|honou?r|heir", re.I)


def article(word: str) -> str:
    """The indefinite article that the sound of a word asks for, "a" or "an"."""
    spoken = word.lstrip("\"'(")
    if _CONSONANT_SOUND.match(spoken):
        return "a"
    return "an" if _VOWEL_SOUND.match(spoken) else "a"


def with_article(text: str) -> str:
    """The text behind its indefinite article: "old man" gives "an old man"."""
    return f"{article(text)} {text}"


def check_template(template: str, axes: Sequence[Axis]) -> None:
    """Refuse a template that lacks an axis or the concept, or names anything else.

    Raises:
        SpecError: names the placeholder that is missing, doubled or unknown.
    """
    found = _PLACEHOLDER.findall(template)
    wanted = [*(axis.name for axis in axes), "concept"]
    known = ", ".join(f"{{{name}}}" for name in ["a", *wanted])
    rest = _PLACEHOLDER.sub("", template)
    if "{" in rest or "}" in rest:
        raise SpecError(f"{template!r} has a brace without its partner, wanted only {known}")
    for name in found:
        if name not in wanted and name != "a":
            raise SpecError(f"{template!r} has the unknown placeholder {{{name}}}, wanted only {known}")
    for name in wanted:
        if (times := found.count(name)) != 1:
            raise SpecError(f"{template!r} has {{{name}}} {times} times, wanted each of {known} once")


def fill(template: str, axes: Sequence[Axis], values: Mapping[str, str], phrase: str) -> str:
    """The prompt of a template; an axis without a value is filled with its neutral word.

    Raises:
        SpecError: the template does not fit the axes, or a value is not one of its axis.
    """
    check_template(template, axes)
    words = {axis.name: _word(axis, values) for axis in axes}
    if unknown := sorted(set(values) - set(words)):
        raise SpecError(f"given a value for {', '.join(unknown)}, wanted only {', '.join(words)}")
    words |= {"concept": phrase, "a": "{a}"}
    return _join(_PLACEHOLDER.sub(lambda match: words[match[1]], template))


def neutral_prompt(template: str, axes: Sequence[Axis], phrase: str) -> str:
    """The prompt with every axis left out: "A photo of a person working as a chef"."""
    return fill(template, axes, {}, phrase)


def edited_words(base_values: Mapping[str, str], values: Mapping[str, str]) -> str:
    """What an edit changes, e.g. "White -> Middle Eastern"; empty where nothing differs."""
    changed = [(base_values[axis], value) for axis, value in values.items() if base_values[axis] != value]
    return ", ".join(f"{old} -> {new}" for old, new in changed)


def _word(axis: Axis, values: Mapping[str, str]) -> str:
    value = values.get(axis.name, axis.neutral)
    if axis.name in values and value not in axis.values:
        raise SpecError(f"given {axis.name} {value!r}, wanted one of {', '.join(axis.values)}")
    return value


def _join(text: str) -> str:
    """One space between words, none before a comma, and each article as its next word sounds."""
    collapsed = re.sub(r"\s+([,.;:!?])", r"\1", " ".join(text.split()))
    return _ARTICLE.sub(lambda match: with_article(match[1]), collapsed)
