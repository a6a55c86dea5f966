"""One self-contained HTML page: escaped text, tables, pictures as data URIs; no script, no network."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_STYLE = """
:root { --ink: #202124; --soft: #5f6368; --line: #dfe1e5; --mark: #2b5c8a; --paper: #fff; --wash: #f6f7f9; }
* { box-sizing: border-box; }
html { color-scheme: light; background: var(--paper); }
body { margin: 0 auto; padding: 2.5rem 1.5rem 5rem; max-width: 1500px; color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", "Helvetica Neue", "Noto Sans", Arial, sans-serif; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .3rem; letter-spacing: -.01em; }
h1, td { overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 3rem 0 .6rem; padding-top: .8rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.6rem 0 .4rem; }
p, ul { max-width: 46rem; margin: .5rem 0; }
.soft { color: var(--soft); }
nav { margin: 1rem 0 0; font-size: .9rem; }
nav a { color: var(--mark); margin-right: 1.1rem; text-decoration: none; }
nav a:hover { text-decoration: underline; }
.facts { display: flex; flex-wrap: wrap; gap: .8rem; margin: 1.5rem 0; padding: 0; }
.facts div { background: var(--wash); border-radius: 8px; padding: .7rem 1.1rem; min-width: 8rem; }
.facts b { display: block; font-size: 1.45rem; line-height: 1.25; font-variant-numeric: tabular-nums; }
.facts span { color: var(--soft); font-size: .85rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: .8rem 0; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .32rem .9rem .32rem 0; border-bottom: 1px solid var(--line); }
th, td { vertical-align: top; }
th { color: var(--soft); font-weight: 500; white-space: nowrap; }
td.n, th.n { text-align: right; }
td.bar { min-width: 9rem; vertical-align: middle; }
td.bar i { display: block; height: .55rem; background: var(--mark); border-radius: 2px; min-width: 1px; }
figure { margin: 1rem 0 1.6rem; }
figure img { max-width: 100%; height: auto; display: block; }
figcaption { color: var(--soft); font-size: .88rem; margin-top: .35rem; max-width: 60rem; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(300px, 1fr)); gap: .6rem 1.4rem; }
.charts figure { margin: 0; }
.examples { display: flex; flex-wrap: wrap; gap: 1.6rem; }
.examples figure { display: flex; gap: .5rem; flex-wrap: wrap; margin: 0; }
.examples span { display: block; font-size: .8rem; color: var(--soft); }
.examples img { width: 128px; height: 128px; image-rendering: auto; border-radius: 4px; }
@media print { nav { display: none; } h2 { break-after: avoid; } figure { break-inside: avoid; } }
"""


def page(title: str, body: Iterable[str]) -> str:
    """A whole page; `title` is text, the parts of `body` are HTML."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


class Section:
    """A part of the page that can be linked to; it is left out where it has no content."""

    def __init__(self, name: str, heading: str, parts: Iterable[str]) -> None:
        """Take the parts as HTML."""
        self.name, self.heading = name, heading
        self.body = "\n".join(parts)

    @property
    def html(self) -> str:
        """The section, or nothing."""
        if not self.body:
            return ""
        head = f'<section id="{escape(self.name)}">\n<h2>{escape(self.heading)}</h2>'
        return f"{head}\n{self.body}\n</section>"


def links(sections: Iterable[Section]) -> str:
    """Links to the sections that have content."""
    found = (f'<a href="#{escape(one.name)}">{escape(one.heading)}</a>' for one in sections if one.body)
    return f"<nav>{''.join(found)}</nav>"


def paragraph(text: str, soft: bool = False) -> str:
    """A paragraph of plain text."""
    return f"<p{' class=soft' if soft else ''}>{escape(text)}</p>"


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Large figures, each with what it counts."""
    cells = "".join(f"<div><b>{escape(value)}</b><span>{escape(name)}</span></div>" for value, name in pairs)
    return f'<div class="facts">{cells}</div>'


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], bar: int | None = None) -> str:
    """A table; numbers stand right, None is empty, and the column `bar` (a share) is drawn as a bar too."""
    body = [list(row) for row in rows]
    numeric = [all(isinstance(row[i], int | float | None) for row in body) for i in range(len(columns))]
    head = "".join(f"<th{_number(numeric[i])}>{escape(name)}</th>" for i, name in enumerate(columns))
    lines = "".join(f"<tr>{_cells(row, numeric, bar)}</tr>\n" for row in body)
    extra = "<th></th>" if bar is not None else ""
    head = f"<thead><tr>{head}{extra}</tr></thead>"
    return f'<div class="wide"><table>\n{head}\n<tbody>\n{lines}</tbody>\n</table></div>'


def _cells(row: Sequence[object], numeric: Sequence[bool], bar: int | None) -> str:
    cells = "".join(f"<td{_number(numeric[i])}>{escape(shown(value))}</td>" for i, value in enumerate(row))
    if bar is None:
        return cells
    value = row[bar]
    width = min(1.0, max(0.0, value)) if isinstance(value, float) else 0.0
    return cells + f'<td class="bar"><i style="width:{width:.1%}"></i></td>'


def _number(numeric: bool) -> str:
    return ' class="n"' if numeric else ""


class Share(float):
    """A number from 0 to 1 that is shown in percent."""


def share(value: float | None) -> Share | None:
    """A share, None where it is not known."""
    return None if value is None else Share(value)


def shown(value: object) -> str:
    """A value as the tables show it: shares in percent, scores with three digits, None as nothing."""
    if value is None:
        return ""
    if isinstance(value, Share):
        return f"{value:.0%}"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def figure(uri: str, alt: str, caption: str = "") -> str:
    """A picture from a data URI."""
    if not uri.startswith("data:image/"):
        raise ValueError("a picture of the page has to be a data URI")
    text = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f'<figure><img src="{escape(uri)}" alt="{escape(alt)}">{text}</figure>'
