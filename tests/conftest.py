"""Hypothesis without a clock or a dice: the same examples on every machine, however loaded it is."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")
