"""LLaVA-1.5 (7B, 13B): a CLIP tower, two linear layers and a Llama, as `LlavaForConditionalGeneration`.

Prompt form: `USER: <image>`, a new line, `... ASSISTANT:`; that of the published checkpoints llava-hf/llava-1.5-7b-hf and
llava-1.5-13b-hf.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from transformers import LlavaForConditionalGeneration, PretrainedConfig, PreTrainedModel


class LlavaAdapter:
    """See the module."""

    name = "llava"
    vision: tuple[str, ...] = ("model.vision_tower",)
    projector: tuple[str, ...] = ("model.multi_modal_projector",)
    language: tuple[str, ...] = ("model.language_model", "lm_head")

    def fits(self, config: PretrainedConfig) -> bool:
        """Whatever has the class of LLaVA-1.5."""
        return config.model_type == "llava"

    def model_class(self, config: PretrainedConfig) -> type[PreTrainedModel]:
        """The class of LLaVA-1.5."""
        return LlavaForConditionalGeneration

    def form(self, image_token: str, instruction: str) -> str:
        """Without the sentence about a curious human, as in the published chat template."""
        return f"USER: {image_token}\n{instruction} ASSISTANT:"

    def positions(self, model: PreTrainedModel, tokens: Tensor, image: Mapping[str, Tensor]) -> Tensor:
        """One position a token, (P,); image tokens count like others."""
        return torch.arange(tokens.numel(), device=tokens.device)
