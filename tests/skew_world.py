"""Simulated models whose shares are known: answers to counterfactual sets, correlated within a set or not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from debias.predictions import Predictions, predictions_from

RACES = ("Asian", "Black", "Indian", "Latino", "Middle Eastern", "White")
GENDERS = ("man", "woman")


def simulated(
    rates: Sequence[float],
    sets: int,
    rng: np.random.Generator,
    *,
    together: float = 0.0,
    known_sets: bool = True,
    concept: str = "chef",
) -> Predictions:
    """Each set has one image of each value; value a is called `concept` with probability rates[a], else "other".

    `together` is the share of images that are decided by their set's dice instead of their own.
    """
    values = len(rates)
    own, common = rng.random((sets, values)), rng.random((sets, 1))
    dice = np.where(rng.random((sets, values)) < together, common, own)
    said = np.where(dice < np.asarray(rates), concept, "other").ravel()
    value = np.tile([f"v{a}" for a in range(values)], sets)
    set_id = np.repeat([f"s{i:05d}" for i in range(sets)], values)
    return predictions_from(said, {"axis": value}, set_id=set_id if known_sets else None)


def answered(counts: dict[str, Sequence[int]], values: Sequence[str] = GENDERS) -> Predictions:
    """So many answers of each concept to each value of the axis gender."""
    rows = [
        (concept, value)
        for concept, numbers in counts.items()
        for value, number in zip(values, numbers, strict=True)
        for _ in range(number)
    ]
    said, value = zip(*rows, strict=True)
    return predictions_from(said, {"gender": value})


def truth(rates: Sequence[float]) -> np.ndarray:
    """The true Skew of each value: its share of the rates against 1 / K."""
    shares = np.asarray(rates) / np.sum(rates)
    return np.log(shares * len(rates))


def twins(
    sets: int,
    rng: np.random.Generator,
    *,
    recall: float = 0.8,
    less: dict[tuple[str, str], float] | None = None,
    concepts: Sequence[str] = ("arts", "chef", "science"),
) -> Predictions:
    """Sets of two genders and six races; a true concept is given with `recall`, `less` often to (concept, value)."""
    rows = []
    for number in range(sets):
        concept = concepts[number % len(concepts)]
        for gender in GENDERS:
            for race in RACES:
                right = recall
                for (name, value), off in (less or {}).items():
                    right -= off * (name == concept and value in (gender, race))
                said = concept if rng.random() < right else concepts[rng.integers(len(concepts))]
                rows.append((said, gender, race, f"{concept}_{number:04d}", concept))
    said, gender, race, set_id, true = zip(*rows, strict=True)
    return predictions_from(said, {"gender": gender, "race": race}, set_id=set_id, concept=true)
