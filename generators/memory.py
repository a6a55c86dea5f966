"""How many members of a set fit one UNet call."""

from __future__ import annotations

from .weights import ModelError

#: Bytes that a row of a UNet call holds at its peak, in units of the largest feature map (latent pixels x first channels x
#: bytes of a number): 25 to 29 were measured on the embedded model.
PEAK_MAPS = 32


def members_that_fit(
    memory_gb: float, parameters: int, pixels: int, channels: int, itemsize: int, guided: bool
) -> int:
    """Return the largest chunk for a memory budget, by arithmetic, so that it does not depend on the machine.

    Args:
        memory_gb: budget in 10^9 bytes, for weights and activations of the UNet calls; decoding is one picture at a time.
        parameters: how many the pipeline has.
        pixels: of the latents, height x width.
        channels: of the UNet's first level.
        itemsize: bytes of a number in the dtype that the spec asks for, whatever the device then computes in.
        guided: whether members count twice, for classifier-free guidance.

    Raises:
        ModelError: not even a base and one edit fit.
    """
    weights = parameters * itemsize
    row = PEAK_MAPS * pixels * channels * itemsize
    found = int((memory_gb * 1e9 - weights) // (row * (2 if guided else 1)))
    if found < 2:
        least = (weights + 2 * row * (2 if guided else 1)) / 1e9
        raise ModelError(
            f"sampler.memory_gb: given {memory_gb:g}, wanted at least {least:.2g} for this model, size and dtype"
        )
    return found
