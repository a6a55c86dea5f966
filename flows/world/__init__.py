"""Tiny multimodal models of the embedded world, whose bias is known because it was put in.

    python -m flows.world tower|base|null        train them; the biased LLaVA ships with the project

The face is light: nothing here loads torch.
"""

from generators.paperdolls import WEIGHTS

LLAVA = WEIGHTS / "llava"
"""The shipped LLaVA: trained on rendered portraits, biased by `flows.world.stereotypes.bias_table()`."""
