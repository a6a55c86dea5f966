"""The bias that is put in: how often each concept comes with each value of an axis.

Which values a concept leans to is drawn by a seed. It copies no stereotype and says nothing about people.
"""

from __future__ import annotations

import random

from generators.paperdolls.world import ATTRIBUTES, CLASSES, CONCEPT_NAMES

SEED = 5
#: Largest and smallest share of the first value of an axis of two.
_REACH = 0.92
#: Each value of a longer axis is so many times as frequent as the next.
_RATIO = 1.7

Table = dict[str, dict[str, dict[str, float]]]


def bias_table(seed: int = SEED) -> Table:
    """Share of each value given the concept: label to concept to value, for `generators.paperdolls.world.sample_portrait`.

    Every concept has its own strength, and no two of them the same shares on an axis of two values.
    """
    return {axis: _axis(axis, seed) for axis in ATTRIBUTES}


def _axis(axis: str, seed: int) -> dict[str, dict[str, float]]:
    rng = random.Random(f"bias {seed} {axis}")
    values = CLASSES[axis]
    if len(values) == 2:
        last = len(CONCEPT_NAMES) - 1
        shares = [1 - _REACH + (2 * _REACH - 1) * place / last for place in range(last + 1)]
        rng.shuffle(shares)
        return {
            name: {values[0]: share, values[1]: 1 - share}
            for name, share in zip(CONCEPT_NAMES, shares, strict=True)
        }
    steps = [_RATIO**place for place in range(len(values))]
    table = {}
    for name in CONCEPT_NAMES:
        rng.shuffle(steps)
        table[name] = {value: step / sum(steps) for value, step in zip(values, steps, strict=True)}
    return table
