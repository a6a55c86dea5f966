"""Whatever is wrong with a spec is said in one line that names the field; what is right comes back frozen."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from flows.settings import SHIPPED, load_spec, spec_from_dict, spec_to_dict
from generators.concepts import CONCEPTS
from generators.plan import make_plan, members
from generators.spec import Axis, SpecError, Thresholds
from storage.errors import CounterpoiseError

SMALL: dict[str, Any] = {
    "name": "small",
    "concepts": ["chef", "science"],
    "axes": {"gender": ["woman", "man"], "race": ["White", "Middle Eastern"]},
    "base_axes": ["gender"],
    "edit_axes": ["race"],
    "templates": ["A photo of {a} {race} {gender} {concept}"],
    "sets_per_concept": 2,
}


def changed(path: str, value: Any) -> dict[str, Any]:
    """SMALL with the value at a dotted path set."""
    document = copy.deepcopy(SMALL)
    *parents, last = path.split(".")
    place = document
    for part in parents:
        place = place.setdefault(part, {})
    place[last] = value
    return document


def refused(document: object) -> SpecError:
    with pytest.raises(SpecError) as caught:
        spec_from_dict(document, "mine.yaml")
    assert str(caught.value).startswith("mine.yaml: ")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.field) == (str(caught.value), caught.value.field)
    return caught.value


def test_the_small_spec_has_the_defaults() -> None:
    spec = spec_from_dict(SMALL)
    gender, race = Axis("gender", ("woman", "man"), "person"), Axis("race", ("White", "Middle Eastern"), "")
    assert spec.axes == (gender, race)
    assert spec.concepts == (CONCEPTS["chef"], CONCEPTS["science"])
    assert (spec.model, spec.filters, spec.edit.kind, spec.sampler.steps) == ("embedded", "auto", "auto", 50)
    assert spec.edit.cross_replace == {"default": 1.0, "edited": 0.4}
    assert (spec.tries("chef"), spec.embedded) == (1, True)


def test_the_three_shipped_specs() -> None:
    assert SHIPPED == ("cmsc", "demo", "tiny")
    cmsc, demo, tiny = (load_spec(name) for name in SHIPPED)
    assert cmsc.concepts == demo.concepts == tuple(CONCEPTS.values())
    assert len(make_plan(cmsc)) * len(members(cmsc, make_plan(cmsc)[0])) == 60_480
    assert (cmsc.sampler.steps, cmsc.sampler.guidance, cmsc.edit.self_replace) == (50, 7.5, 0.4)
    assert (cmsc.sampler.width, cmsc.sampler.height) == (None, None)
    assert cmsc.tries("chef") == 13 < cmsc.tries("high_school")
    assert (len(make_plan(demo)), demo.sets_per_shard, demo.model) == (18, 3, "embedded")
    assert (len(make_plan(tiny)), tiny.model) == (4, "embedded")


@pytest.mark.parametrize("name", SHIPPED)
def test_a_spec_survives_its_dictionary(name: str) -> None:
    spec = load_spec(name)
    assert spec_from_dict(json.loads(json.dumps(spec_to_dict(spec), sort_keys=True))) == spec


def test_a_dictionary_tells_the_order_of_axes_and_values() -> None:
    swapped = changed("axes", {"race": ["White", "Middle Eastern"], "gender": ["woman", "man"]})
    one, two = (json.dumps(spec_to_dict(spec_from_dict(d)), sort_keys=True) for d in (SMALL, swapped))
    assert one != two


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(SMALL, sort_keys=False))
    assert load_spec(str(file)) == load_spec(file) == spec_from_dict(SMALL)


def test_forms_of_concepts() -> None:
    own = {"pilot": {"group": "work", "phrases": ["flying an airplane", "in a pilot's seat"]}}
    assert [c.name for c in spec_from_dict(changed("concepts", own)).concepts] == ["pilot"]
    assert len(spec_from_dict(changed("concepts", "all")).concepts) == 18


def test_forms_of_candidates_and_filters() -> None:
    assert spec_from_dict(changed("candidates", 5)).candidates == {"default": 5}
    spec = spec_from_dict(changed("candidates", {"default": 5, "chef": 9}))
    assert (spec.tries("chef"), spec.tries("science")) == (9, 5)
    limits = spec_from_dict(changed("filters", {"clip_text": 0.2, "nsfw": None})).filters
    assert limits == Thresholds(clip_text=0.2, nsfw=None)


def test_a_partly_given_schedule_keeps_the_other_defaults() -> None:
    edit = spec_from_dict(changed("edit.cross_replace", {"White": 0.1})).edit
    assert edit.cross_replace == {"default": 1.0, "edited": 0.4, "White": 0.1}


WRONG: list[tuple[str, Any, str, str]] = [
    ("sede", 1, "sede", "did you mean 'seed'?"),
    ("sampler.stesp", 1, "sampler.stesp", "did you mean 'steps'?"),
    ("filters.clip_txt", 1, "filters.clip_txt", "did you mean 'clip_text'?"),
    ("seed", -1, "seed", "given -1, wanted a whole number of 0 or more"),
    ("seed", True, "seed", "given true"),
    ("seed", 2**63, "seed", "wanted a whole number"),
    ("name", "A b", "name", 'given "A b"'),
    ("name", "", "name", 'given ""'),
    ("kind", "preference", "kind", "wanted counterfactual"),
    ("model", None, "model", 'wanted "embedded"'),
    ("axes", {}, "axes", "given {}"),
    ("axes", ["gender"], "axes.0", '"name"'),
    ("axes.gender", ["woman"], "axes.gender.values", "at least two different values"),
    (
        "axes.gender",
        {"values": ["a", "b"], "nuetral": "x"},
        "axes.gender.nuetral",
        "did you mean 'neutral'?",
    ),
    ("axes.gender", {"values": ["woman", "man"], "neutral": "x1"}, "axes.gender.neutral", 'given "x1"'),
    ("axes.race", ["White", "white"], "axes.race.values", 'given ["White", "white"]'),
    ("axes.race", ["White", "Black2"], "axes.race.values.1", 'given "Black2"'),
    ("axes.race", ["White", " Black"], "axes.race.values.1", "letters, spaces and hyphens"),
    ("axes.race", [False, "Black"], "axes.race.values.0", "given false"),
    ("axes.race", 3, "axes.race.values", "given 3"),
    ("axes.Race", ["a", "b"], "axes.Race", "small letters"),
    ("axes.kept", ["a", "b"], "axes.kept", "not a column"),
    ("axes.concept", ["a", "b"], "axes.concept", "not a column"),
    ("axes.age", ["young", "old"], "edit_axes", "'age' in exactly one"),
    ("axes.race", [chr(97 + i // 26) + chr(97 + i % 26) for i in range(51)], "axes", "at most 100"),
    ("base_axes", ["gendr"], "base_axes", "did you mean 'gender'?"),
    ("base_axes", ["gender", "race"], "edit_axes", "'race' in exactly one"),
    ("base_axes", "gender", "base_axes", "wanted a list"),
    ("edit_axes", [], "edit_axes", "one or more"),
    ("edit_axes", ["race", "race"], "edit_axes", "different axes"),
    ("concepts", ["chf"], "concepts.0", "did you mean 'chef'?"),
    ("concepts", ["chef", "chef"], "concepts.1", "each name once"),
    ("concepts", "some", "concepts", 'given "some", wanted "all"'),
    ("concepts", [], "concepts", "wanted"),
    ("concepts", {"pilot": {"group": "work"}}, "concepts.pilot.phrases", "given nothing"),
    ("concepts", {"pilot": {"group": "work", "phrases": ["up, up"]}}, "concepts.pilot.phrases.0", "commas"),
    ("concepts", {"Pilot": {"group": "work", "phrases": ["up"]}}, "concepts.Pilot", "small letters"),
    ("templates", ["{a} {gender} {concept}"], "templates.0", "{race} 0 times"),
    ("templates", [], "templates", "wanted a list"),
    ("sets_per_concept", 0, "sets_per_concept", "1 or more"),
    ("sets_per_concept", "2", "sets_per_concept", 'given "2"'),
    ("sets_per_shard", 2.5, "sets_per_shard", "given 2.5"),
    ("candidates", 0, "candidates.default", "given 0"),
    ("candidates", {"chef": 2}, "candidates", '"default"'),
    ("candidates", {"default": 2, "cheff": 2}, "candidates", "did you mean 'chef'?"),
    ("sampler", None, "sampler", "given null"),
    ("sampler.width", 512, "sampler.width", "both"),
    ("sampler.width", 513, "sampler.width", "multiple of 8"),
    ("sampler.scheduler", "dimm", "sampler.scheduler", "did you mean 'ddim'?"),
    ("sampler.dtype", "float61", "sampler.dtype", "did you mean 'float16'?"),
    ("sampler.guidance", float("nan"), "sampler.guidance", "from 0 to 100"),
    ("sampler", {"chunk": 4, "memory_gb": 8.0}, "sampler.memory_gb", "null where sampler.chunk is given"),
    ("sampler.memory_gb", 0.0, "sampler.memory_gb", "GB above 0"),
    ("sampler.chunk", 1, "sampler.chunk", "null for the whole set"),
    ("edit.kind", "replce", "edit.kind", "did you mean 'replace'?"),
    ("edit.kind", "replace", "edit.kind", "'White' and 'Middle Eastern' (axes.race)"),
    ("edit.cross_replace", {"edted": 0.4}, "edit.cross_replace", "did you mean 'edited'?"),
    ("edit.cross_replace", {"edited": 1.4}, "edit.cross_replace.edited", "from 0 to 1"),
    ("edit.self_replace", -0.1, "edit.self_replace", "from 0 to 1"),
    ("edit.p2p", "yes", "edit.p2p", "true or false"),
    ("edit.halves", "bth", "edit.halves", "did you mean 'both'?"),
    ("edit.reweight", {"smilling": 2.0}, "edit.reweight", "a word of the prompts"),
    ("edit.reweight", {"edited": 50.0}, "edit.reweight.edited", "-20 to 20"),
    ("edit.self_resolution", 0, "edit.self_resolution", "side of attention layers"),
    ("edit.local_blend", {"words": ["gendr"]}, "edit.local_blend.words", "did you mean 'gender'?"),
    ("edit.local_blend", {"words": []}, "edit.local_blend.words", "a list of"),
    ("edit.local_blend", {"treshold": 0.2}, "edit.local_blend.treshold", "did you mean 'threshold'?"),
    ("filters", None, "filters", '"auto" or a mapping'),
    ("preview", {"steps": 0}, "preview.steps", "1 or more"),
    ("preview", {"steps": 2, "scheduler": "plms"}, "preview.scheduler", "one of ddim, euler"),
    ("preview", {"steps": 10**6}, "preview.steps", "of sampler.steps"),
    ("preview", {"filters": "auto"}, "preview.steps", "1 or more"),
    (
        "preview",
        {"steps": 1, "filters": {"clip_txt": 0.1}},
        "preview.filters.clip_txt",
        "did you mean 'clip_text'?",
    ),
    ("filters", "atuo", "filters", 'given "atuo"'),
    ("filters", {"clip_text": 1.5}, "filters.clip_text", "cosine"),
    ("filters", {"background_change": float("inf")}, "filters.background_change", "grey levels"),
    ("scorers.clip", "", "scorers.clip", 'given ""'),
    ("split.train", 0.9, "split", "add up to 1 (here 1.1)"),
    ("split.held_out_concepts", ["chf"], "split.held_out_concepts", "did you mean 'chef'?"),
]


@pytest.mark.parametrize(("path", "value", "field", "said"), WRONG)
def test_what_is_wrong_is_named(path: str, value: Any, field: str, said: str) -> None:
    error = refused(changed(path, value))
    assert error.field == field
    assert f"mine.yaml: {field}: " in str(error)
    assert said in str(error)


@pytest.mark.parametrize("field", ["name", "concepts", "axes", "base_axes", "edit_axes", "sets_per_concept"])
def test_what_is_missing_is_named(field: str) -> None:
    error = refused({key: value for key, value in SMALL.items() if key != field})
    assert error.field == field
    assert "given nothing" in str(error)


def test_a_misspelt_key_comes_before_what_it_leaves_missing() -> None:
    document = changed("nmae", "x")
    del document["name"]
    error = refused(document)
    assert "did you mean 'name'?" in str(error)
    assert str(error).endswith("1 more to mend")


def test_replace_is_fine_where_the_numbers_of_words_agree_or_nothing_is_edited() -> None:
    document = changed("edit.kind", "replace")
    document["axes"]["race"] = ["White", "Black"]
    assert spec_from_dict(document).edit.kind == "replace"
    document = changed("edit", {"kind": "replace", "p2p": False})
    assert not spec_from_dict(document).edit.p2p


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"name: [", "line 1"),
        (b"name: a\nname: b", "line 2, column 1: the key 'name' is given twice"),
        (b"sampler: {steps: 1, steps: 2}", "the key 'steps' is given twice"),
        (b"name: a\n\tseed: 1", "line 2"),
        (b"no: 1", "the key False is not text"),
        (b"name: \xff\xfe", "not valid YAML"),
        (b"name: 2024-13-45", "not valid YAML"),
        (b"a: *b", "undefined alias"),
        (b"a: !!python/object:os.system {}", "constructor"),
        (b"? [1, 2]\n: 3", "unhashable"),
        (b"a: 1\n---\nb: 2", "another document"),
        (b"[" * 5000, "not valid YAML"),
        (b"seed: " + b"9" * 5000, "not valid YAML"),
        (b"", "given null, wanted a mapping"),
        (b"- name", "wanted a mapping"),
        (b"axes: &x {gender: *x}", "unknown key"),
    ],
)
def test_a_file_that_is_no_spec(content: bytes, said: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_bytes(content)
    with pytest.raises(SpecError) as caught:
        load_spec(file)
    if said != "unknown key":
        assert said in str(caught.value)
    assert str(caught.value).startswith(str(file))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CounterpoiseError, match=r"cmcs: no such file.*did you mean 'cmsc'\?"):
        load_spec("cmcs")
    with pytest.raises(SpecError, match="cannot be read"):
        load_spec(tmp_path)
    with pytest.raises(SpecError, match="cannot be read"):
        load_spec("a\0b")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


FIELDS = [*SMALL, "seed", "sampler", "edit", "filters", "scorers", "split", "candidates"]


@given(field=st.sampled_from(FIELDS), value=json_values)
def test_no_value_of_any_field_escapes_as_another_error(field: str, value: Any) -> None:
    try:
        spec_from_dict({**SMALL, field: value}, "mine.yaml")
    except SpecError as error:
        assert "\n" not in str(error)
        assert str(error).startswith("mine.yaml: ")
