"""The shape of a spec's YAML: pydantic models whose descriptions are what an error says is wanted."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from generators.prompts import TEMPLATES
from generators.spec import SCHEDULERS, Dtype, EditKind, Halves, Scheduler, SpecError, default_cross_replace
from storage.errors import shown


def distinct(items: list[str]) -> list[str]:
    """The items; a validator that refuses one given twice, whatever its case."""
    if len({item.casefold() for item in items}) < len(items):
        raise ValueError("doubled")
    return items


Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=60)]
Words = Annotated[str, Field(pattern=r"^[A-Za-z]+(?:[ -][A-Za-z]+)*$", max_length=80)]
Neutral = Annotated[str, Field(pattern=r"^(?:[A-Za-z]+(?:[ -][A-Za-z]+)*)?$", max_length=80)]
Phrase = Annotated[str, Field(pattern=r"^[A-Za-z0-9'-]+(?: [A-Za-z0-9'-]+)*$", max_length=160)]
Share = Annotated[float, Field(ge=0, le=1)]
Cosine = Annotated[float, Field(ge=-1, le=1)]
Count = Annotated[int, Field(ge=1)]
Text = Annotated[str, Field(min_length=1)]

_SHARE = "a number from 0 to 1"
_COSINE = "a cosine from -1 to 1, or null where it is not judged"
_COUNT = "a whole number of 1 or more"
_SIZE = "a multiple of 8 pixels, or null for the model's own size"
_SIDE = "the side of attention layers, 1 or more, or null"
_SCHEDULER = f"one of {', '.join(SCHEDULERS)}"
_SCORER = '"auto", "embedded", the name or folder of a model, or null for no such score'


def wanted(description: str, default: Any = ...) -> Any:
    """A field whose description completes "wanted ..."; without a default it is required."""
    return Field(default=default, description=description)


class Doc(BaseModel):
    """A mapping of the file: no unknown keys, no silent conversion of types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class AxisDoc(Doc):
    """One axis."""

    values: Annotated[list[Words], Field(min_length=2), AfterValidator(distinct)] = wanted(
        "at least two different values made of letters, spaces and hyphens"
    )
    neutral: Neutral = wanted("a word for where the axis is left out, or an empty text", "")


class ConceptDoc(Doc):
    """One concept."""

    group: Name = wanted("a name of small letters, digits and underscores")
    phrases: Annotated[list[Phrase], Field(min_length=1), AfterValidator(distinct)] = wanted(
        "a list of different phrases of words, without commas"
    )


class SamplerDoc(Doc):
    """How a set is denoised."""

    steps: int = Field(default=50, ge=1, le=1000, description="a whole number of steps from 1 to 1000")
    guidance: float = Field(
        default=7.5, ge=0, le=100, description="a number from 0 to 100, up to 1 for no guidance"
    )
    scheduler: Scheduler = wanted(_SCHEDULER, "ddim")
    width: int | None = Field(default=None, ge=8, multiple_of=8, description=_SIZE)
    height: int | None = Field(default=None, ge=8, multiple_of=8, description=_SIZE)
    dtype: Dtype = wanted("one of float32, float16, bfloat16", "float32")
    negative_prompt: str = wanted("a text", "")
    chunk: Annotated[int, Field(ge=2)] | None = wanted(
        "the members per UNet call, 2 or more (a base and an edit), or null for the whole set", None
    )
    memory_gb: float | None = Field(
        default=None, gt=0, description="a number of GB above 0, or null for no budget"
    )


class BlendDoc(Doc):
    """Local blend."""

    words: Annotated[list[Text], Field(min_length=1), AfterValidator(distinct)] = wanted(
        'a list of "edited", axes, or words of every prompt', ["edited"]
    )
    threshold: Share = wanted(_SHARE, 0.3)
    start: Share = wanted(_SHARE, 0.2)
    resolution: Count | None = wanted(_SIDE, None)


class EditDoc(Doc):
    """How members are edited from their base."""

    kind: EditKind = wanted("one of auto, replace, refine", "auto")
    cross_replace: dict[str, Share] = Field(
        default_factory=default_cross_replace,
        description='a mapping of "default", "edited" or a word of the prompts to a number from 0 to 1',
    )
    self_replace: Share = wanted(_SHARE, 0.4)
    self_resolution: Count | None = wanted(_SIDE, None)
    halves: Halves = wanted("one of conditional, both", "both")
    reweight: dict[str, Annotated[float, Field(ge=-20, le=20)]] = wanted(
        'a mapping of "edited" or a word of the prompts to a factor from -20 to 20', {}
    )
    local_blend: BlendDoc | None = wanted("a mapping, or null for none", None)
    p2p: bool = wanted("true or false", True)


class ThresholdsDoc(Doc):
    """The verdict's limits."""

    clip_text: Cosine | None = wanted(_COSINE, None)
    clip_base: Cosine | None = wanted(_COSINE, None)
    clip_direction: Cosine | None = wanted(_COSINE, None)
    background_change: float | None = Field(
        default=None, ge=0, description="grey levels of 0 or more, or null where it is not judged"
    )
    attribute_share: Share | None = wanted(f"{_SHARE}, or null where it is not judged", 1.0)
    nsfw: Share | None = wanted(f"{_SHARE}, or null where it is not judged", 0.5)
    faces: Count | None = wanted(f"{_COUNT}, or null where it is not judged", 1)


class EarlyDoc(ThresholdsDoc):
    """The limits of early rejection: what is not named is not judged, but for nsfw."""

    attribute_share: Share | None = wanted(f"{_SHARE}, or null where it is not judged", None)
    faces: Count | None = wanted(f"{_COUNT}, or null where it is not judged", None)


class PreviewDoc(Doc):
    """Early rejection."""

    steps: Count = wanted(f"{_COUNT}, less than sampler.steps")
    scheduler: Scheduler = wanted(_SCHEDULER, "dpmpp")
    filters: EarlyDoc | None = wanted('"auto" or a mapping of limits', None)


class ScorersDoc(Doc):
    """Which model computes each score."""

    clip: Text | None = wanted(_SCORER, "auto")
    segmenter: Text | None = wanted(_SCORER, "auto")
    nsfw: Text | None = wanted(_SCORER, "auto")
    faces: Text | None = wanted(_SCORER, "auto")


class SplitDoc(Doc):
    """Shares of the splits."""

    train: Share = wanted(_SHARE, 0.8)
    validation: Share = wanted(_SHARE, 0.1)
    test: Share = wanted(_SHARE, 0.1)
    held_out_concepts: Annotated[list[str], AfterValidator(distinct)] = wanted(
        "a list of different concepts of this spec", []
    )


class SpecDoc(Doc):
    """The whole file."""

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9_-]*$",
        max_length=60,
        description="a name of small letters, digits, hyphens and underscores",
    )
    kind: Literal["counterfactual"] = wanted("counterfactual", "counterfactual")
    seed: int = Field(default=0, ge=0, lt=2**63, description="a whole number of 0 or more")
    model: Text = wanted('"embedded", the id of an SDXL on the hub, or a folder', "embedded")
    concepts: dict[Name, ConceptDoc] = Field(
        min_length=1,
        description='"all", a list of shipped concepts, or a mapping of names (small letters, digits, '
        "underscores) to group and phrases",
    )
    axes: dict[Name, AxisDoc] = Field(
        min_length=1,
        description="a mapping of names (small letters, digits, underscores) to at least two values each",
    )
    base_axes: Annotated[list[str], AfterValidator(distinct)] = wanted("a list of different axes")
    edit_axes: Annotated[list[str], Field(min_length=1), AfterValidator(distinct)] = wanted(
        "a list of one or more different axes"
    )
    templates: Annotated[list[Text], Field(min_length=1), AfterValidator(distinct)] = wanted(
        "a list of different templates", list(TEMPLATES)
    )
    sets_per_concept: Count = wanted(_COUNT)
    candidates: dict[str, Count] = wanted(
        'a whole number of 1 or more, or a mapping of "default" and concepts to such numbers', {"default": 1}
    )
    sets_per_shard: Count = wanted(_COUNT, 16)
    sampler: SamplerDoc = wanted("a mapping", SamplerDoc())
    edit: EditDoc = wanted("a mapping", EditDoc())
    filters: ThresholdsDoc | None = wanted('"auto" or a mapping of limits', None)
    preview: PreviewDoc | None = wanted("a mapping, or null for none", None)
    scorers: ScorersDoc = wanted("a mapping", ScorersDoc())
    split: SplitDoc = wanted("a mapping", SplitDoc())


def did_you_mean(given: object, options: Iterable[str]) -> str:
    """The nearest option as words to put behind an error, or nothing."""
    near = difflib.get_close_matches(str(given), list(options), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def refusal(source: str, field: str, given: object, wanted: str, options: Sequence[str] = ()) -> SpecError:
    """The error of one line: file, dotted field, what was given, what is wanted, the nearest option."""
    try:
        text = shown(given, 80)
    except (TypeError, ValueError):
        text = " ".join(repr(given).split())[:80]
    where = f"{source}: {field}: " if field else f"{source}: "
    return SpecError(f"{where}given {text}, wanted {wanted}{did_you_mean(given, options)}", field)


def refused_shape(source: str, error: ValidationError, document: type[BaseModel] = SpecDoc) -> SpecError:
    """The first of pydantic's errors as one line; unknown keys come first, for they explain missing ones."""
    found = sorted(error.errors(include_url=False), key=lambda one: one["type"] != "extra_forbidden")
    first, more = found[0], len(found) - 1
    parts = [part for part in first["loc"] if part != "[key]"]
    owner, info = _described(parts, document)
    field = ".".join(map(str, parts))
    if first["type"] == "extra_forbidden":
        names = list(owner.model_fields)
        hint = did_you_mean(parts[-1], names)
        line = f"{source}: {field}: unknown key, wanted one of {', '.join(names)}{hint}"
    elif first["type"] == "missing":
        line = f"{source}: {field}: given nothing, wanted {_wanted(info)}"
    else:
        line = str(refusal(source, field, first["input"], _wanted(info), _choices(info)))
    return SpecError(line + (f"; {more} more to mend" if more else ""), field)


def _described(loc: Sequence[Any], document: type[BaseModel]) -> tuple[type[BaseModel], FieldInfo | None]:
    """The innermost model and field that a location speaks of; no field where the key is unknown."""
    owner: type[BaseModel] = document
    model: type[BaseModel] | None = document
    info: FieldInfo | None = None
    keyed = False
    for part in loc:
        if keyed:
            keyed = False
            continue
        if model is None:
            break
        owner, info = model, model.model_fields.get(part)
        annotation = info.annotation if info else None
        keyed, model = get_origin(annotation) is dict, _model_in(annotation)
    return owner, info


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for arg in get_args(annotation) if (model := _model_in(arg))), None)


def _wanted(info: FieldInfo | None) -> str:
    return (info.description if info else None) or "another value"


def _choices(info: FieldInfo | None) -> tuple[str, ...]:
    found = get_args(info.annotation) if info and get_origin(info.annotation) is Literal else ()
    return tuple(str(choice) for choice in found)
