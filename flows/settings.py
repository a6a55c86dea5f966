"""Settings at the door: YAML in, validated once, a frozen `Spec` out, or one line that says what to mend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import ValidationError

from generators.concepts import CONCEPTS
from generators.spec import (
    AUTO,
    Axis,
    Concept,
    Edit,
    LocalBlend,
    Preview,
    Sampler,
    ScorerChoice,
    Spec,
    SpecError,
    Split,
    Thresholds,
    default_cross_replace,
)

from .rules import check_spec
from .schema import PreviewDoc, SpecDoc, ThresholdsDoc, did_you_mean, refusal, refused_shape

_SPECS = files("generators").joinpath("specs")
SHIPPED = tuple(sorted(Path(spec.name).stem for spec in _SPECS.iterdir() if spec.name.endswith(".yaml")))
"""Names of the specs that ship with the project."""


def load_spec(path_or_shipped_name: str | Path) -> Spec:
    """The spec of a YAML file, or of one that ships with the project ("cmsc", "demo", "tiny").

    Raises:
        SpecError: one line with the file, the field, what was given and what is wanted.
    """
    given = str(path_or_shipped_name)
    source = f"{given}.yaml" if given in SHIPPED else given
    return spec_from_dict(parse_yaml(read_yaml(given, SHIPPED, _SPECS), source, "name: mine"), source)


def spec_from_dict(document: object, source: str = "spec") -> Spec:
    """The spec of a document as YAML or `spec_to_dict` gives it; ``source`` names it in errors."""
    if not isinstance(document, dict):
        raise refusal(source, "", document, "a mapping with the keys " + ", ".join(SpecDoc.model_fields))
    try:
        checked = SpecDoc.model_validate(_spelled_out(document, source))
    except ValidationError as error:
        raise refused_shape(source, error) from None
    spec = _freeze(checked)
    check_spec(spec, source)
    return spec


def spec_to_dict(spec: Spec) -> dict[str, Any]:
    """The spec as plain lists and mappings, the same for equal specs; lists where the order counts."""
    plain: dict[str, Any] = _plain(asdict(spec))
    return plain


def read_yaml(given: str, shipped: Sequence[str], folder: Traversable) -> bytes:
    """The bytes of a YAML file, or of one in `folder` by its name there.

    Raises:
        SpecError: there is no such file, or it cannot be read.
    """
    if given in shipped:
        return folder.joinpath(f"{given}.yaml").read_bytes()
    try:
        return Path(given).read_bytes()
    except FileNotFoundError:
        names = f"a YAML file or one of {', '.join(shipped)}"
        raise SpecError(f"{given}: no such file, wanted {names}{did_you_mean(given, shipped)}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SpecError(f"{given!r}: cannot be read ({reason}), wanted a YAML file") from None


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, but a key given twice is an error rather than silently the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """The mapping of a node, after looking for doubled keys."""
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
        for place, key in enumerate(keys):
            if key in keys[:place]:
                mark = node.value[place][0].start_mark
                raise yaml.MarkedYAMLError(problem=f"the key {key!r} is given twice", problem_mark=mark)
        found: dict[Any, Any] = super().construct_mapping(node, deep)
        if odd := [key for key in found if not isinstance(key, str)]:
            problem = f"the key {odd[0]!r} is not text, put it in quotes"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        return found


def parse_yaml(content: bytes, source: str, example: str) -> object:
    """What YAML says; `example` is a line that errors show.

    Raises:
        SpecError: it is no YAML, or a key is given twice or is no text.
    """
    try:
        return yaml.load(content, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        reason = error.problem or "cannot be parsed"
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        where, reason = "", " ".join(str(error).split())[:160]
    raise SpecError(f"{source}: not valid YAML{where}: {reason}; wanted a mapping such as `{example}`")


def _spelled_out(document: dict[Any, Any], source: str) -> dict[Any, Any]:
    """The document with its short forms written in full; what has no known form is left to the schema."""
    full = dict(document)
    if "axes" in full:
        full["axes"] = _spelled_axes(_by_name(full["axes"], "axes", source))
    if "concepts" in full:
        full["concepts"] = _spelled_concepts(full["concepts"], source)
    if type(tries := full.get("candidates")) is int:
        full["candidates"] = {"default": tries}
    if "filters" in full and full["filters"] is None:
        raise refusal(source, "filters", None, '"auto" or a mapping of limits')
    if full.get("filters") == AUTO:
        full["filters"] = None
    if isinstance(early := full.get("preview"), dict) and early.get("filters") == AUTO:
        full["preview"] = {**early, "filters": None}
    return full


def _spelled_axes(axes: object) -> object:
    if not isinstance(axes, dict):
        return axes
    return {name: _spelled_axis(name, value) for name, value in axes.items()}


def _spelled_axis(name: object, value: object) -> dict[Any, Any]:
    neutral = {"neutral": "person"} if name == "gender" else {}
    return neutral | (value if isinstance(value, dict) else {"values": value})


def _spelled_concepts(given: object, source: str) -> object:
    if given == "all":
        given = list(CONCEPTS)
    if not isinstance(given, list):
        return given
    full = [_shipped(item, f"concepts.{place}", source) for place, item in enumerate(given)]
    return _by_name(full, "concepts", source)


def _shipped(item: object, field: str, source: str) -> object:
    if not isinstance(item, str):
        return item
    if item not in CONCEPTS:
        raise refusal(source, field, item, f"one of {', '.join(CONCEPTS)}", list(CONCEPTS))
    concept = CONCEPTS[item]
    return {"name": item, "group": concept.group, "phrases": list(concept.phrases)}


def _by_name(items: object, field: str, source: str) -> object:
    """A list of mappings that have a "name" as one mapping by name; anything else as it is."""
    if not isinstance(items, list):
        return items
    found: dict[str, object] = {}
    for place, item in enumerate(items):
        if not isinstance(item, dict) or not isinstance(name := item.get("name"), str):
            raise refusal(source, f"{field}.{place}", item, 'a mapping with a "name"')
        if name in found:
            raise refusal(source, f"{field}.{place}", name, "each name once")
        found[name] = {key: value for key, value in item.items() if key != "name"}
    return found


def _freeze(doc: SpecDoc) -> Spec:
    split = doc.split.model_dump() | {"held_out_concepts": tuple(doc.split.held_out_concepts)}
    return Spec(
        name=doc.name,
        kind=doc.kind,
        seed=doc.seed,
        model=doc.model,
        concepts=tuple(Concept(name, c.group, tuple(c.phrases)) for name, c in doc.concepts.items()),
        axes=tuple(Axis(name, tuple(a.values), a.neutral) for name, a in doc.axes.items()),
        base_axes=tuple(doc.base_axes),
        edit_axes=tuple(doc.edit_axes),
        templates=tuple(doc.templates),
        sets_per_concept=doc.sets_per_concept,
        candidates=dict(doc.candidates),
        sets_per_shard=doc.sets_per_shard,
        sampler=Sampler(**doc.sampler.model_dump()),
        edit=_edit(doc),
        filters=_limits(doc.filters),
        preview=_preview(doc.preview) if doc.preview else None,
        scorers=ScorerChoice(**doc.scorers.model_dump()),
        split=Split(**split),
    )


def _preview(doc: PreviewDoc) -> Preview:
    return Preview(doc.steps, doc.scheduler, _limits(doc.filters))


def _limits(doc: ThresholdsDoc | None) -> Thresholds | Literal["auto"]:
    return "auto" if doc is None else Thresholds(**doc.model_dump())


def _edit(doc: SpecDoc) -> Edit:
    given = doc.edit.model_dump()
    blend = given.pop("local_blend")
    chosen = LocalBlend(**{**blend, "words": tuple(blend["words"])}) if blend else None
    shares = default_cross_replace() | given.pop("cross_replace")
    return Edit(**given, cross_replace=shares, local_blend=chosen)


def _plain(value: object) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
