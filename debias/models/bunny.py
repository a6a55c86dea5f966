"""Bunny-8B: a SigLIP tower, two linear layers and a Llama-3.

transformers has no Bunny. The published model (BAAI/Bunny-Llama-3-8B-V) brings code of its own, which is not run here: it
joins its parts as LLaVA does, so it is taken as a `LlavaForConditionalGeneration` of the same parts, with
`vision_feature_select_strategy="full"`, since SigLIP has no class token, and the last layer but one
(`vision_feature_layer=-2`). Its checkpoint has to be saved in that layout first. Bunny v1.1, which reads pictures at two
scales, is another model.
"""

from __future__ import annotations

from transformers import PretrainedConfig

from .llava import LlavaAdapter

_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)


class BunnyAdapter(LlavaAdapter):
    """See the module."""

    name = "bunny"

    def fits(self, config: PretrainedConfig) -> bool:
        """Of LLaVA's class, with a SigLIP tower."""
        return super().fits(config) and config.vision_config.model_type == "siglip_vision_model"

    def form(self, image_token: str, instruction: str) -> str:
        """The form in the published model's card."""
        return f"{_SYSTEM} USER: {image_token}\n{instruction} ASSISTANT:"
