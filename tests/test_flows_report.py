"""The report is one file that needs nothing else, shows what is on record, and takes no markup."""

from __future__ import annotations

import base64
import json
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from flows_world import bad_candidates, load, opened, run_all, small
from PIL import Image

from flows import charts
from flows.closing import REPORT
from flows.cost import COST, add_run, calibrate, duration, measured
from flows.page import Section, Share, figure, links, page, paragraph, table
from flows.proof import PROOF, load_comparison, save_comparison
from flows.report import write_report
from generators.comparison import Comparison
from generators.engine import PreparedEngine

NASTY = '<script>alert("x")</script>&'


class Reader(HTMLParser):
    """Collects tags, attributes and text; fails on tags that are not closed in order."""

    VOID = frozenset({"meta", "img", "br", "!doctype"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data if self.open[-1:] != ["style"] else ""

    def values(self, name: str) -> list[str]:
        return [value for _, found, value in self.attributes if found == name]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Chef is kept at the second try, one weapon never."""
    folder = tmp_path_factory.mktemp("report") / "data"
    spec = small()
    run_all(folder, spec, load(bad_candidates(spec, {"chef_0000": 1, "weapon_0001": 2})))
    return folder


def read(dataset: Path) -> Reader:
    return Reader((dataset / REPORT).read_text(encoding="utf-8"))


def test_the_report_needs_nothing_but_itself(dataset: Path) -> None:
    text, found = (dataset / REPORT).read_text(encoding="utf-8"), read(dataset)
    assert found.tags["script"] == found.tags["link"] == found.tags["iframe"] == 0
    assert found.values("src")
    assert all(src.startswith("data:image/") for src in found.values("src"))
    assert all(href.startswith("#") for href in found.values("href"))
    assert not re.search(r"@import|url\(", text)
    assert any("default-src 'none'" in value for value in found.values("content"))


def test_its_links_lead_somewhere(dataset: Path) -> None:
    found = read(dataset)
    assert {href[1:] for href in found.values("href")} == set(found.values("id"))
    assert {"sheets", "yield", "scores", "reasons", "weights", "cost"} <= set(found.values("id"))


def test_it_shows_what_is_on_record(dataset: Path) -> None:
    text = " ".join(read(dataset).text.split())
    for expected in ("5 of 6", "20", "62%", "clip_text", "prepared", "Apache-2.0", "sampler.steps"):
        assert expected in text, expected
    assert "weapon" in text
    assert "prompted appearance" in text
    assert "prompt-to-prompt" not in text.split("Weights and settings")[0], "no comparison was made"


def test_every_picture_has_a_description(dataset: Path) -> None:
    found = read(dataset)
    assert len(found.values("alt")) == found.tags["img"]
    assert all(found.values("alt"))


def test_writing_it_again_gives_the_same_bytes(dataset: Path) -> None:
    before = (dataset / REPORT).read_bytes()
    assert write_report(str(dataset)) == str(dataset / REPORT)
    assert (dataset / REPORT).read_bytes() == before


def comparison(count: int = 6) -> Comparison:
    pictures = tuple(Image.new("RGB", (20, 20), colour) for colour in ("red", "green", "blue"))
    with_p2p, without = (
        tuple(float(i) for i in range(count)),
        (float("nan"), *(2.0 * i for i in range(1, count))),
    )
    return Comparison(3, with_p2p, without, 0.98, 0.99, 0.5, 0.4, 0.625, (pictures,))  # type: ignore[arg-type]


def test_a_comparison_shows_in_the_report(dataset: Path) -> None:
    save_comparison(str(dataset), comparison())
    try:
        write_report(str(dataset))
        text = " ".join(read(dataset).text.split())
        assert "ratio of medians, with to without0.5" in text
        assert "0.4 to 0.625" in text
        assert "98.0%" in text
        assert "99.0%" in text
        assert text.count("same seed only") == 1
    finally:
        (dataset / PROOF).unlink()
        write_report(str(dataset))


def test_a_comparison_survives_storage(tmp_path: Path) -> None:
    save_comparison(str(tmp_path), comparison())
    found = load_comparison(str(tmp_path))
    assert found is not None
    assert found.numbers["ratio"] == 0.5
    assert found.with_p2p == (0.0, 1.0, 2.0, 3.0, 4.0, 5.0)
    assert str(found.without[0]) == "nan"
    assert found.without[1:] == (2.0, 4.0, 6.0, 8.0, 10.0)
    assert len(found.examples) == 1
    json.loads((tmp_path / PROOF).read_text(), parse_constant=lambda name: pytest.fail(name))


@pytest.mark.parametrize(
    "uri", ["javascript:alert(1)", "https://example.org/a.webp", 7, "data:text/html;base64,AA"]
)
def test_a_comparison_of_others_brings_no_links(tmp_path: Path, uri: Any) -> None:
    save_comparison(str(tmp_path), comparison())
    body = json.loads((tmp_path / PROOF).read_text())
    body["examples"][0][1] = uri
    (tmp_path / PROOF).write_text(json.dumps(body))
    assert load_comparison(str(tmp_path)) is None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"bases": 1}'])
def test_a_comparison_that_is_none_is_left_out(tmp_path: Path, content: str) -> None:
    (tmp_path / PROOF).parent.mkdir()
    (tmp_path / PROOF).write_text(content)
    assert load_comparison(str(tmp_path)) is None


def test_text_of_others_is_escaped() -> None:
    section = Section("a", NASTY, [paragraph(NASTY), table((NASTY,), [[NASTY], [None]])])
    found = Reader(page(NASTY, [section.html, links([section])]))
    assert found.tags["script"] == 0
    assert found.text.count(NASTY) == 6


def test_weights_of_others_bring_their_restrictions_and_no_markup(tmp_path: Path) -> None:
    class Other(PreparedEngine):
        def describe(self) -> dict[str, object]:
            more = {"id": NASTY, "licence": "openrail++", "restrictions": "Attachment A applies"}
            return {**super().describe(), **more}

    run_all(tmp_path, factory=load(engine=Other(24)), shards="0:1")
    found = read(tmp_path)
    assert found.tags["script"] == 0
    assert NASTY in found.text
    assert "Attachment A applies" in found.text
    card = (tmp_path / "README.md").read_text()
    assert "license: openrail++" in card
    assert "Attachment A applies" in card
    assert "<script>" not in card


def test_a_figure_takes_data_only() -> None:
    with pytest.raises(ValueError, match="data URI"):
        figure("https://example.org/a.png", "a")


def test_a_section_without_content_is_left_out() -> None:
    empty = Section("a", "A", iter(()))
    assert (empty.html, links([empty])) == ("", "<nav></nav>")


def test_numbers_stand_right_and_shares_are_percent() -> None:
    html = table(("name", "n", "share"), [["a", 1, Share(0.25)], ["b", None, None]], bar=2)
    assert '<td class="n">1</td><td class="n">25%</td><td class="bar"><i style="width:25.0%">' in html
    assert '<td>b</td><td class="n"></td><td class="n"></td>' in html


def test_charts_are_svg_without_outside_references() -> None:
    bins = [{"low": 0.1 * i, "high": 0.1 * (i + 1), "kept": i, "rejected": 5 - i} for i in range(5)]
    for uri in (
        charts.histogram("clip_text", bins, 0.2),
        charts.histogram("clip_text", bins[:1], None),
        charts.distributions([1.0, 2.0], [3.0, 3.0], "change"),
    ):
        svg = base64.b64decode(uri.removeprefix("data:image/svg+xml;base64,")).decode()
        assert svg.count("<svg") == 1
        assert not re.search(r'(?:href|src)="(?!#)', svg)


def test_a_limit_is_drawn() -> None:
    bins = [
        {"low": 0.0, "high": 1.0, "kept": 1, "rejected": 0},
        {"low": 1.0, "high": 2.0, "kept": 0, "rejected": 1},
    ]
    assert charts.histogram("clip_text", bins, None) == charts.histogram("clip_text", bins, None)
    assert charts.histogram("clip_text", bins, 0.5) != charts.histogram("clip_text", bins, None)


def test_costs_of_runs_add_up(tmp_path: Path) -> None:
    assert measured(str(tmp_path)) is None
    add_run(str(tmp_path), images=100, seconds=50.0, workers=2)
    add_run(str(tmp_path), images=50, seconds=50.0, workers=1)
    found = measured(str(tmp_path))
    assert found is not None
    assert (found.images, found.seconds, found.worker_seconds, found.per_image) == (150, 100.0, 150.0, 1.0)


@pytest.mark.parametrize(
    "content", ["", "[]", '{"runs": [{"images": "many"}]}', '{"runs": [{"images": NaN}]}']
)
def test_costs_that_are_none_count_as_not_measured(tmp_path: Path, content: str) -> None:
    (tmp_path / COST).parent.mkdir()
    (tmp_path / COST).write_text(content)
    assert measured(str(tmp_path)) is None


def test_calibration_keeps_nothing(tmp_path: Path) -> None:
    campaign = opened(tmp_path / "data")
    before = sorted(path.name for path in (tmp_path / "data").rglob("*"))
    assert 0 < calibrate(campaign) < 5
    assert sorted(path.name for path in (tmp_path / "data").rglob("*")) == before


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (42, "42 s"), (450, "7.5 min"), (11520, "3.2 h"), (1e6, "11.6 days")],
)
def test_durations_read_well(seconds: float, text: str) -> None:
    assert duration(seconds) == text
