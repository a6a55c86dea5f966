"""What must hold between the fields of a spec; each rule refuses with the field it looks at."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from math import prod

from generators.prompts import check_template
from generators.spec import Spec, SpecError
from storage.records import MAX_CELLS, schema

from .schema import refusal

RESERVED = frozenset({"a", *schema(()).names})
"""Names that an axis cannot have, for it becomes a column and a placeholder of its own."""


def check_spec(spec: Spec, source: str) -> None:
    """Refuse a spec whose fields contradict each other.

    Raises:
        SpecError: one line with the file, the field, what was given and what is wanted.
    """
    for rule in (_axes, _roles, _templates, _candidates, _size, _preview, _replace, _edit_words, _split):
        rule(spec, source)


def _axes(spec: Spec, source: str) -> None:
    for axis in spec.axes:
        if axis.name in RESERVED:
            wanted = "a name that is not a column of the dataset"
            raise refusal(source, f"axes.{axis.name}", axis.name, wanted)
    counts = [len(axis.values) for axis in spec.axes]
    if prod(counts) > MAX_CELLS:
        wanted = f"at most {MAX_CELLS} combinations of values ({prod(counts)} here)"
        raise refusal(source, "axes", counts, wanted)


def _roles(spec: Spec, source: str) -> None:
    names = [axis.name for axis in spec.axes]
    _known(source, "base_axes", spec.base_axes, names)
    _known(source, "edit_axes", spec.edit_axes, names)
    for name in names:
        if (name in spec.base_axes) == (name in spec.edit_axes):
            given = {"base_axes": list(spec.base_axes), "edit_axes": list(spec.edit_axes)}
            raise refusal(source, "edit_axes", given, f"the axis {name!r} in exactly one of the two")


def _known(source: str, field: str, given: Iterable[str], options: Sequence[str]) -> None:
    for name in given:
        if name not in options:
            raise refusal(source, field, name, f"only {', '.join(options)}", options)


def _templates(spec: Spec, source: str) -> None:
    for place, template in enumerate(spec.templates):
        try:
            check_template(template, spec.axes)
        except SpecError as error:
            field = f"templates.{place}"
            raise SpecError(f"{source}: {field}: given {error}", field) from None


def _candidates(spec: Spec, source: str) -> None:
    _known(source, "candidates", spec.candidates, ["default", *(concept.name for concept in spec.concepts)])
    if "default" not in spec.candidates:
        wanted = 'the key "default" too, for the other concepts'
        raise refusal(source, "candidates", dict(spec.candidates), wanted)


def _size(spec: Spec, source: str) -> None:
    size = [spec.sampler.width, spec.sampler.height]
    if (size[0] is None) != (size[1] is None):
        raise refusal(source, "sampler.width", size, "width and height both, or null for both")
    if spec.sampler.chunk is not None and spec.sampler.memory_gb is not None:
        raise refusal(
            source, "sampler.memory_gb", spec.sampler.memory_gb, "null where sampler.chunk is given"
        )


def _preview(spec: Spec, source: str) -> None:
    if spec.preview is not None and spec.preview.steps >= spec.sampler.steps:
        wanted = f"less than the {spec.sampler.steps} of sampler.steps"
        raise refusal(source, "preview.steps", spec.preview.steps, wanted)


def _replace(spec: Spec, source: str) -> None:
    if spec.edit.kind != "replace" or not spec.edit.p2p:
        return
    for axis in (spec.axis(name) for name in spec.edit_axes):
        by_length = {len(re.split(r"[ -]", value)): value for value in axis.values}
        if len(by_length) > 1:
            odd = " and ".join(repr(value) for value in list(by_length.values())[:2])
            wanted = f"auto or refine, for {odd} (axes.{axis.name}) differ in their number of words"
            raise refusal(source, "edit.kind", spec.edit.kind, wanted)


def _edit_words(spec: Spec, source: str) -> None:
    words, blend = _words(spec), spec.edit.local_blend
    for field, given, special in (
        ("cross_replace", spec.edit.cross_replace, ["default", "edited"]),
        ("reweight", spec.edit.reweight, ["edited"]),
        ("local_blend.words", blend.words if blend else (), ["edited", *(axis.name for axis in spec.axes)]),
    ):
        for key in given:
            if key not in (known := [*special, *words]):
                wanted = f"{', '.join(special)} or a word of the prompts"
                raise refusal(source, f"edit.{field}", key, wanted, known)


def _words(spec: Spec) -> list[str]:
    """Every word that can stand in a prompt; a value of two words is two words here."""
    values = [value for axis in spec.axes for value in (*axis.values, axis.neutral)]
    phrases = [phrase for concept in spec.concepts for phrase in concept.phrases]
    templates = [re.sub(r"\{[^}]*\}", " ", template) for template in spec.templates]
    return sorted(set(re.findall(r"[\w'-]+", " ".join([*values, *phrases, *templates]))))


def _split(spec: Spec, source: str) -> None:
    shares = [spec.split.train, spec.split.validation, spec.split.test]
    if abs(sum(shares) - 1) > 1e-6:
        wanted = f"train, validation and test that add up to 1 (here {sum(shares):g})"
        raise refusal(source, "split", shares, wanted)
    _known(source, "split.held_out_concepts", spec.split.held_out_concepts, [c.name for c in spec.concepts])
