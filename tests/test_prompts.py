"""The words: articles, templates, phrases."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generators.concepts import CONCEPTS, SCHOOL_CONCEPTS
from generators.prompts import (
    TEMPLATES,
    article,
    check_template,
    edited_words,
    fill,
    neutral_prompt,
    with_article,
)
from generators.spec import Axis, SpecError

AXES = (
    Axis("gender", ("woman", "man"), "person"),
    Axis("age", ("young", "old")),
    Axis("race", ("White", "Asian", "Middle Eastern")),
)
TEMPLATE = "A photo of {a} {age} {race} {gender} {concept}"
AN = "old Asian Indian elderly honest hour heir unidentified unimportant umbrella usher only urgent"
A = "young White Middle university uniform user European one-armed union unimodal house horn"
PHRASES = [phrase for concept in CONCEPTS.values() for phrase in concept.phrases]


@pytest.mark.parametrize("word", AN.split())
def test_an(word: str) -> None:
    assert with_article(word) == f"an {word}"


@pytest.mark.parametrize("word", A.split())
def test_a(word: str) -> None:
    assert with_article(word) == f"a {word}"


def test_article_looks_through_quotes_and_case() -> None:
    assert article('"Old') == "an"
    assert article("UNIVERSITY") == "a"


def test_fill_puts_every_word_in_its_place() -> None:
    values = {"gender": "woman", "age": "old", "race": "Middle Eastern"}
    assert fill(TEMPLATE, AXES, values, "at home") == "A photo of an old Middle Eastern woman at home"


def test_article_follows_what_is_left_when_an_axis_is_left_out() -> None:
    assert fill(TEMPLATE, AXES, {"race": "Asian"}, "at home") == "A photo of an Asian person at home"
    assert fill(TEMPLATE, AXES, {"gender": "man"}, "at home") == "A photo of a man at home"


def test_article_of_a_concept_that_is_a_noun() -> None:
    axes = (Axis("gender", ("male", "female")),)
    assert neutral_prompt("{a} {gender} {concept}", axes, "honest engineer") == "an honest engineer"
    assert fill("{a} {gender} {concept}", axes, {"gender": "male"}, "engineer") == "a male engineer"


def test_neutral_prompt_names_no_value() -> None:
    assert neutral_prompt(TEMPLATES[3], AXES, "at home") == (
        "A photo of a person at home, facing the camera, natural light"
    )


def test_no_space_before_a_comma_where_a_word_is_left_out() -> None:
    axes = (Axis("race", ("White", "Black")),)
    assert neutral_prompt("{concept} {race}, alone", axes, "a chef") == "a chef, alone"


@given(
    template=st.sampled_from(TEMPLATES),
    phrase=st.sampled_from(PHRASES),
    values=st.fixed_dictionaries({}, optional={axis.name: st.sampled_from(axis.values) for axis in AXES}),
)
def test_every_prompt_is_clean_english(template: str, phrase: str, values: dict[str, str]) -> None:
    prompt = fill(template, AXES, values, phrase)
    assert not re.search(r"[{}]|\s\s|\s,|\s$", prompt)
    assert phrase in prompt
    for word in values.values():
        assert len(re.findall(rf"\b{word}\b", prompt)) == 1
    found = re.search(r"\b(an?) (\w)", prompt[1:])
    assert found
    assert (found[1] == "an") == (found[2].lower() in "aeiou")


@pytest.mark.parametrize(
    ("template", "named"),
    [
        ("{a} {age} {gender} {concept}", "{race} 0 times"),
        ("{a} {age} {race} {gender}", "{concept} 0 times"),
        ("{a} {age} {race} {race} {gender} {concept}", "{race} 2 times"),
        ("{a} {age} {race} {gender} {job} {concept}", "{job}"),
        ("{a} {age} {race} {gender} {concept} {", "brace"),
        ("{a} {age} {race} {gender} {} {concept}", "{}"),
    ],
)
def test_unfit_template_is_refused_by_name(template: str, named: str) -> None:
    with pytest.raises(SpecError) as error:
        check_template(template, AXES)
    assert named in str(error.value)


def test_value_and_axis_that_do_not_exist_are_refused() -> None:
    with pytest.raises(SpecError, match=r"race 'Green', wanted one of White, Asian, Middle Eastern"):
        fill(TEMPLATE, AXES, {"race": "Green"}, "at home")
    with pytest.raises(SpecError, match="height"):
        fill(TEMPLATE, AXES, {"height": "tall"}, "at home")
    with pytest.raises(SpecError, match="concept"):
        fill(TEMPLATE, AXES, {"concept": "tall"}, "at home")


def test_edited_words() -> None:
    base = {"gender": "man", "age": "old", "race": "White"}
    assert edited_words(base, base) == ""
    assert edited_words(base, base | {"race": "Middle Eastern"}) == "White -> Middle Eastern"
    assert edited_words(base, base | {"race": "Asian", "age": "young"}) == "old -> young, White -> Asian"


def test_the_concepts_of_cmsc() -> None:
    groups = [concept.group for concept in CONCEPTS.values()]
    sizes = {group: groups.count(group) for group in groups}
    assert sizes == {"personality": 5, "responsibility": 6, "education": 7}
    assert all(name == concept.name for name, concept in CONCEPTS.items())
    assert {"middle_school", "high_school"} <= SCHOOL_CONCEPTS <= set(CONCEPTS)


@pytest.mark.parametrize("name", CONCEPTS)
def test_phrases_of_a_concept(name: str) -> None:
    phrases = CONCEPTS[name].phrases
    others = " ".join(p for c in CONCEPTS.values() if c.name != name for p in c.phrases)
    elsewhere = set(others.lower().split())
    forbidden = {"his", "her", "he", "she", "man", "woman", "person", "they", "him"}
    assert len(set(phrases)) == len(phrases) == 4
    for phrase in phrases:
        words = phrase.lower().split()
        assert re.fullmatch(r"[a-zA-Z]+( [a-zA-Z]+)*", phrase)
        assert len(words) <= 12
        assert not forbidden & set(words)
        assert set(words) - elsewhere, f"{phrase!r} has no word of its own"


def test_phrases_name_no_value_but_the_word_middle() -> None:
    values = {"young", "old", "white", "black", "indian", "asian", "eastern", "latino"}
    assert not values & {word for phrase in PHRASES for word in phrase.lower().split()}
