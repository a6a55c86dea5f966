"""Recorded logs are read as lmms-eval meant them; spoilt ones are refused with a line that names what is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from suite_world import AFTER, BASE, TASKS, altered, changed, copied, results, samples

from debias.suites.comparing import body_of, report_on
from debias.suites.logs import Run, find_results, read_run
from debias.suites.scores import LETTER, NUMBER, SCORE, scores_of
from storage.errors import CounterpoiseError


def scored(run: Run, task: str, metric: str | None = None) -> Any:
    found = scores_of(run.tasks[task], metric)
    assert found is not None
    return found


@pytest.mark.parametrize("place", [BASE, AFTER])
def test_means_are_those_that_lmms_eval_reported(place: Path) -> None:
    """MMBench's by our reading of letters, all rotations together, too: it reports percent."""
    run = read_run(place)
    assert list(run.tasks) == TASKS
    hows = {"mmbench_en_dev_static": LETTER, "mme": SCORE, "pope": SCORE}
    for task in set(TASKS) - {"mme"}:
        found = scored(run, task)
        assert found.how == hows.get(task, NUMBER)
        times = 100 if found.how == LETTER else 1
        assert found.values.mean() * times == pytest.approx(found.reported, abs=1e-9), task


def test_units_are_questions_of_one_picture_and_rotations() -> None:
    run = read_run(BASE)
    mme = scored(run, "mme")
    assert np.bincount(mme.units).tolist() == [2] * 7  # 14 of 20 questions are of perception
    assert len(scored(run, "mme", "mme_cognition_score").docs) == 6
    rotated = scored(run, "mmbench_en_dev_static")
    assert len(rotated.values) == 12 and run.tasks["mmbench_en_dev_static"].docs == 24
    assert len(set(scored(run, "pope").units.tolist())) == 30


def test_a_rotation_that_is_wrong_makes_the_question_wrong(tmp_path: Path) -> None:
    place = copied(BASE, tmp_path / "logs")
    before = scored(read_run(place), "mmbench_en_dev_static").values

    def wrong(rows: list[dict[str, Any]]) -> None:
        at = next(n for n, row in enumerate(rows) if before[row["gpt_eval_score"]["index"] % 1_000_000] == 1)
        rows[at]["gpt_eval_score"]["prediction"] = "I cannot tell."

    changed(place, "mmbench_en_dev_static", wrong)
    assert scored(read_run(place), "mmbench_en_dev_static").values.sum() == before.sum() - 1


def test_filters_are_told_apart() -> None:
    run = read_run(BASE)
    for name in ("strict-match", "flexible-extract"):
        found = scored(run, "colours_two_filters", f"exact_match,{name}")
        assert found.values.mean() == pytest.approx(found.reported)
    assert scored(run, "colours_two_filters").metric == "exact_match,strict-match"


def test_groups_and_patterns(tmp_path: Path) -> None:
    place = copied(BASE, tmp_path / "logs")
    altered(place, lambda body: body["group_subtasks"].update(mine=["pope", "more"], more=["mme", "mine"]))
    assert list(read_run(place, ["mine"]).tasks) == ["mme", "pope"]
    assert list(read_run(place, ["m*"]).tasks) == ["mme", "mmbench_en_dev_static"][::-1]


def report(now: Path, then: Path, **more: Any) -> dict[str, Any]:
    return body_of(report_on(read_run(now), read_run(then), 0.01, **more))


def test_a_report() -> None:
    body = report(AFTER, BASE)
    assert json.dumps(body) == json.dumps(report(AFTER, BASE)) and "NaN" not in json.dumps(body)
    assert body["verdict"] == "inferior" and body["warnings"] == []
    found = {name: one["comparison"] for name, one in body["tasks"].items()}
    assert (found["pope"]["gained"], found["pope"]["lost"], found["pope"]["p"]) == (0, 7, 2 / 2**7)
    assert found["mme"]["units"] == 7 and found["mme"]["p"] is None
    back = report(BASE, AFTER)["tasks"]
    assert {back[name]["comparison"]["verdict"] for name in ("pope", "colours_two_filters")} == {
        "non-inferior"
    }
    for name, one in back.items():
        assert one["comparison"]["difference"] == pytest.approx(-found[name]["difference"])
    assert json.dumps(report(AFTER, BASE, seed=1)) != json.dumps(body)


def test_a_copy_of_a_run_is_not_a_proof(tmp_path: Path) -> None:
    """Equal answers to a few dozen questions leave a loss of 1 % open."""
    body = report(copied(BASE, tmp_path / "logs"), BASE)
    assert body["verdict"] == "inconclusive"
    assert all(one["comparison"]["difference"] == 0 for one in body["tasks"].values())


Spoil = Callable[[Path], object]


def cut(place: Path) -> None:
    path = samples(place, "pope")
    path.write_bytes(path.read_bytes()[:-40])


def second_run(place: Path) -> None:
    other = results(place)
    other.with_name("20270101_000000_results.json").write_bytes(other.read_bytes())


SPOILT: dict[str, tuple[Spoil, tuple[str, ...]]] = {
    "truncated": (cut, ("_samples_pope.jsonl: line 30", "it is cut off")),
    "short": (lambda p: changed(p, "pope", lambda rows: rows.pop()), ("29 of the 30 questions", "cut short")),
    "twice": (lambda p: changed(p, "pope", lambda rows: rows.append(rows[4])), ("doc_id 4 is in it 2 times, wanted 1",)),
    "empty": (lambda p: samples(p, "pope").write_text("\n"), ("it is empty",)),
    "missing": (lambda p: samples(p, "pope").unlink(), ("missing beside its results", "--log_samples")),
    "no rows": (lambda p: samples(p, "pope").write_text("[1]\n"), ("line 1: doc_id is None",)),
    "no json": (lambda p: samples(p, "pope").write_text("{}}\n{}\n"), ("line 1: it is no JSON",)),
    "deep": (lambda p: samples(p, "pope").write_text("[" * 99999 + "\n\n"), ("line 1: it is no JSON",)),
    "true id": (lambda p: changed(p, "pope", lambda r: r[0].update(doc_id=True)), ("doc_id is True",)),
    "results": (lambda p: results(p).write_text("{"), ("_results.json: it is no JSON",)),
    "foreign": (lambda p: results(p).write_text("{}"), ("not a DATE_results.json",)),
    "two runs": (second_run, ("it holds 2 runs", "name one of these files")),
    "no run": (lambda p: results(p).unlink(), ("no DATE_results.json in it",)),
    "nan": (
        lambda p: changed(p, "vqav2_val", lambda r: r[3].update(exact_match=float("nan"))),
        ("doc_id 3: exact_match is nan", "--metric"),
    ),
    "null": (lambda p: changed(p, "vqav2_val", lambda r: r[3].update(exact_match=None)), ("doc_id 3: exact_match is",)),
    "text": (lambda p: changed(p, "pope", lambda r: r[9].update(pope_accuracy="1")), ("doc_id 9: pope_accuracy is '1'",)),
}  # fmt: skip


@pytest.mark.parametrize("kind", SPOILT)
def test_spoilt_logs_are_refused(kind: str, tmp_path: Path) -> None:
    spoil, words = SPOILT[kind]
    place = copied(AFTER, tmp_path / "logs")
    spoil(place)
    with pytest.raises(CounterpoiseError) as found:
        report(place, BASE)
    text = str(found.value)
    assert "\n" not in text and all(word in text for word in words), text


def first(task: str, **values: Any) -> Spoil:
    return lambda place: changed(place, task, lambda rows: rows[0].update(values))


def config(task: str, **values: Any) -> Spoil:
    return lambda place: altered(place, lambda body: body["configs"][task].update(values))


def limited(place: Path) -> None:
    def change(body: dict[str, Any]) -> None:
        body["config"]["limit"] = 8
        body["n-samples"] = {
            name: {"original": one["original"], "effective": 8} for name, one in body["n-samples"].items()
        }

    altered(place, change)
    for task in TASKS:
        changed(
            place,
            task,
            lambda rows: rows.__setitem__(slice(None), [row for row in rows if row["doc_id"] < 8]),
        )


def hashed(place: Path) -> None:
    changed(place, "pope", lambda rows: [row.update(doc_hash=f"at 0x{row['doc_id']}") for row in rows])


OTHER: dict[str, tuple[Spoil, tuple[str, ...]]] = {
    "prompt": (first("pope", input="Say yes."), ("task pope: doc_id 0: prompt is \"Say yes.\"",)),
    "target": (first("pope", target="no"), ("task pope: doc_id 0: target is no now and yes",)),
    "hash": (first("pope", doc_hash="0"), ("task pope: doc_id 0: doc_hash is 0",)),
    "config": (
        config("mme", generation_kwargs={"max_new_tokens": 1}), ("task mme: generation_kwargs is", "max_new_tokens"),
    ),
    "metadata": (config("mme", metadata=[{"version": 1.0}]), ("task mme: metadata is",)),
    "version": (lambda p: altered(p, lambda b: b["versions"].update(mme=2)), ("task mme: version is 2 now",)),
    "gen_kwargs": (
        lambda p: altered(p, lambda b: b["config"].update(gen_kwargs="temperature=1")), ("gen_kwargs is \"temperature",),
    ),
    "limit": (limited, ("32 of its 40 not in this run, the first doc_id 8 (limits: 8 and None)",)),
    "metric for others": (
        lambda p: changed(p, "mme", lambda r: r[0].update(mme_cognition_score=r[0].pop("mme_perception_score"))),
        ("mme_perception_score,none was scored for other questions",),
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", OTHER)
def test_other_questions_are_not_paired(kind: str, tmp_path: Path) -> None:
    spoil, words = OTHER[kind]
    place = copied(AFTER, tmp_path / "logs")
    spoil(place)
    with pytest.raises(CounterpoiseError) as found:
        report(place, BASE)
    assert all(word in str(found.value) for word in words), str(found.value)


def test_addresses_and_hashes_of_addresses_do_not_count(tmp_path: Path) -> None:
    place = copied(AFTER, tmp_path / "logs")
    hashed(place)
    altered(
        place, lambda body: body["configs"]["pope"].update(doc_to_text="<function pope_doc_to_text at 0xabc>")
    )
    altered(
        copied(BASE, tmp_path / "base"),
        lambda body: body["configs"]["pope"].update(doc_to_text="<function pope_doc_to_text at 0x123>"),
    )
    body = report(place, tmp_path / "base")
    assert [line for line in body["warnings"] if "no doc_hash agrees" in line] == body["warnings"] != []


def test_what_is_doubtful_is_said(tmp_path: Path) -> None:
    now, then = copied(AFTER, tmp_path / "now"), copied(BASE, tmp_path / "then")
    for place in (now, then):
        limited(place)
    changed(now, "pope", lambda rows: [row.update(filtered_resps="") for row in rows[:3]])
    changed(now, "vqav2_val", lambda rows: rows[0].update(exact_match=70))
    text = "\n".join(report(now, then)["warnings"])
    for words in (
        "pope: 8 of 30 questions; a limited run",
        "pope: 3 of 8 answers are empty",
        "exact_match,none are not between",
    ):
        assert words in text


def test_tasks_without_scores(tmp_path: Path) -> None:
    """A submission is no score: said, and refused where nothing else is asked."""
    place = copied(AFTER, tmp_path / "logs")
    altered(
        place,
        lambda body: body["configs"]["mmbench_en_dev_static"].update(metric_list=[{"metric": "submission"}]),
    )
    changed(
        place, "mmbench_en_dev_static", lambda rows: [row["submission"].pop("prediction") for row in rows]
    )
    body = body_of(report_on(read_run(place), None, 0.01))
    assert "not tested" in body["tasks"]["mmbench_en_dev_static"]["note"] and len(body["warnings"]) == 1
    with pytest.raises(CounterpoiseError, match="has a score for each question"):
        report_on(read_run(place, ["mmbench_en_dev_static"]), None, 0.01)


@pytest.mark.parametrize(
    ("metrics", "words"),
    [
        ({"gqa": "x"}, "--metric: task 'gqa' is not in the run"),
        ({"pope": "f1"}, "metric 'f1' has no score for each"),
    ],
)
def test_metrics_that_are_not_there(metrics: dict[str, str], words: str) -> None:
    with pytest.raises(CounterpoiseError, match=words):
        report_on(read_run(AFTER), None, 0.01, metrics=metrics)


def test_less_is_better(tmp_path: Path) -> None:
    now, then = copied(AFTER, tmp_path / "now"), copied(BASE, tmp_path / "then")
    for place in (now, then):
        altered(place, lambda body: body["higher_is_better"].update(pope={"pope_accuracy": False}))
    assert report(now, then)["tasks"]["pope"]["comparison"]["difference"] > 0.2


def test_where_runs_are_looked_for(tmp_path: Path) -> None:
    """MMBench's own results in submissions/ are no run."""
    place = copied(AFTER, tmp_path / "logs")
    (place / "submissions").mkdir()
    (place / "submissions" / "mmbench_en_dev_static_results.json").write_text("{}")
    assert find_results(place) == results(place) == find_results(results(place))
    with pytest.raises(CounterpoiseError, match="not there"):
        find_results(tmp_path / "nowhere")
    with pytest.raises(
        CounterpoiseError, match="task 'gqa' is not in it; it has colours_two_filters, mmbench"
    ):
        read_run(place, ["gqa"])
