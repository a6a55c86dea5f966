"""Tiny multimodal models of the embedded world, whose bias is known because it was put in.

    python -m flows.world tower|base|null [llava|qwen]        train them, in this order

The face is light: nothing here loads torch.
"""

from generators.paperdolls import WEIGHTS

LLAVA = WEIGHTS / "llava"
"""Where the biased LLaVA belongs that is to ship; its bias is `flows.world.stereotypes.bias_table()`."""
