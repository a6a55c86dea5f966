"""Qwen2-VL and Qwen2.5-VL: pictures of any size, and positions in time, height and width (M-RoPE).

Prompt form: ChatML with the published checkpoints' system sentence. The merger, at the vision tower's end, is what other
families call the projector. Pictures are not made smaller than the processor asks for: a picture of a million pixels is
some 1300 tokens, so give `max_pixels` in the processor's config, or small pictures, where memory is short.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from transformers import (
    PretrainedConfig,
    PreTrainedModel,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLForConditionalGeneration,
)

_CLASSES: dict[str, type[PreTrainedModel]] = {
    "qwen2_vl": Qwen2VLForConditionalGeneration,
    "qwen2_5_vl": Qwen2_5_VLForConditionalGeneration,
}


class QwenAdapter:
    """See the module."""

    name = "qwen"
    vision: tuple[str, ...] = ("model.visual",)
    projector: tuple[str, ...] = ("model.visual.merger",)
    language: tuple[str, ...] = ("model.language_model", "lm_head")

    def fits(self, config: PretrainedConfig) -> bool:
        """Of one of the two classes."""
        return config.model_type in _CLASSES

    def model_class(self, config: PretrainedConfig) -> type[PreTrainedModel]:
        """By the config's type."""
        return _CLASSES[config.model_type]

    def form(self, image_token: str, instruction: str) -> str:
        """ChatML."""
        seen = f"<|vision_start|>{image_token}<|vision_end|>{instruction}"
        return (
            "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
            f"<|im_start|>user\n{seen}<|im_end|>\n<|im_start|>assistant\n"
        )

    def positions(self, model: PreTrainedModel, tokens: Tensor, image: Mapping[str, Tensor]) -> Tensor:
        """Positions in time, height and width, (3, P), by the model's own rule."""
        kinds = (tokens == model.config.image_token_id).int()
        found, _ = model.model.get_rope_index(
            tokens[None], mm_token_type_ids=kinds[None], image_grid_thw=image["image_grid_thw"]
        )
        return found[:, 0]
