"""A skew table as JSON and back; an infinite number is null there."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from storage.errors import CounterpoiseError

from .answers import Answers, Flips, SkewSize, Worst
from .sampling import Floats
from .skew_formula import shrunk
from .skew_null import Fair
from .skew_table import AxisSkew, Extreme, SkewTable


def to_json(table: SkewTable, shrink: bool = False, **more: object) -> str:
    """A table as JSON text; the same table gives the same text.

    Args:
        table: of any axes.
        shrink: give each cell `shrunk` as well, what `skew_formula.shrunk` leaves of its Skew.
        more: further fields.
    """
    body = {
        "axes": {name: _axis(one, shrink) for name, one in table.axes.items()},
        "smoothing": table.smoothing,
        "target": table.target,
        "min_count": table.min_count,
        "seed": table.seed,
        "rows": table.rows,
        "sets": table.sets,
        "answers": asdict(table.answers),
        "warnings": list(table.warnings),
        **more,
    }
    return json.dumps(_finite(body), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def from_json(text: str | bytes, source: str = "the skew table") -> SkewTable:
    """A table from its JSON.

    Raises:
        CounterpoiseError: it is none, or a field is missing or of another kind.
    """
    try:
        body = json.loads(text)
        axes = {name: _axis_from(name, one) for name, one in body["axes"].items()}
        facts = {name: body[name] for name in ("smoothing", "target", "min_count", "seed", "rows", "sets")}
        return SkewTable(axes, **facts, answers=_answers(body["answers"]), warnings=tuple(body["warnings"]))
    except KeyError as error:
        raise CounterpoiseError(
            f"{source}: field {error} is missing; make it again by `counterpoise skew`."
        ) from error
    except (AttributeError, TypeError, ValueError) as error:
        raise CounterpoiseError(
            f"{source} is no skew table ({error}); make it by `counterpoise skew`."
        ) from error


def _axis(one: AxisSkew, shrink: bool) -> dict[str, Any]:
    cells = [asdict(cell) for cell in one.cells()]
    if shrink:
        for cell, left in zip(cells, shrunk(one.skew, one.low, one.high).ravel().tolist(), strict=True):
            cell["shrunk"] = left
    return {
        **_extreme("max", one.max_skew),
        **_extreme("min", one.min_skew),
        "concepts_used": len(one.concepts),
        "concepts_dropped": len(one.dropped),
        "dropped": dict(one.dropped),
        "values": list(one.values),
        "cells": cells,
    }


def _extreme(which: str, one: Extreme) -> dict[str, float]:
    return {
        f"{which}_skew": one.value,
        f"{which}_low": one.low,
        f"{which}_high": one.high,
        f"{which}_floor": one.floor.mean,
        f"{which}_floor_low": one.floor.low,
        f"{which}_floor_high": one.floor.high,
        f"{which}_null": one.null,
        f"{which}_p": one.p,
    }


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _axis_from(name: str, body: Mapping[str, Any]) -> AxisSkew:
    values, cells = tuple(body["values"]), body["cells"]
    concepts = tuple(dict.fromkeys(cell["concept"] for cell in cells))
    wanted = [(concept, value) for concept in concepts for value in values]
    if not cells or wanted != [(cell["concept"], cell["value"]) for cell in cells]:
        raise ValueError(f"axis {name!r}: one cell for each concept and value, in their order, is wanted")

    def column(field: str) -> Floats:
        # null stands for minus infinity: an absent value's Skew, or the open end of its interval
        numbers = [-math.inf if cell[field] is None else float(cell[field]) for cell in cells]
        return np.array(numbers).reshape(len(concepts), len(values))

    return AxisSkew(
        name, values, concepts, dict(body["dropped"]), column("count").astype(np.int64), column("share"),
        column("target"), column("skew"), column("low"), column("high"), _extreme_from("max", body),
        _extreme_from("min", body),
    )  # fmt: skip


def _extreme_from(which: str, body: Mapping[str, Any]) -> Extreme:
    def number(name: str, infinite: float = -math.inf) -> float:
        found = body[f"{which}_{name}"]
        return infinite if found is None else float(found)

    floor = Fair(number("floor"), number("floor_low"), number("floor_high"))
    return Extreme(
        number("skew"), number("low"), number("high", math.inf), floor, number("null"), number("p")
    )


def _answers(body: Mapping[str, Any]) -> Answers:
    flips, worst = body["flips"], body["worst"]
    return Answers(
        body["given"],
        None if flips is None else Flips(**flips),
        None if worst is None else Worst(**worst),
        body["recall"],
        {axis: SkewSize(**one) for axis, one in body["skew_size"].items()},
    )
