"""Tiny multimodal models of real classes, untrained but for the tower."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import (
    CLIPImageProcessor,
    CLIPVisionModel,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

from debias.models.base import MultimodalModel
from debias.models.opening import adapter_of

from .tower import PATCH, SIZE
from .words import BEGIN, END, IMAGE, PAD, build_tokenizer

WIDTH, LAYERS = 96, 4
_HALF = [0.5, 0.5, 0.5]


def build_llava(tower: Path, seed: int = 0) -> MultimodalModel:
    """LLaVA-1.5's class with a trained tower and a language model that knows nothing yet.

    Args:
        tower: folder of a tower as `flows.world.tower` saves it.
        seed: of the weights.
    """
    torch.manual_seed(seed)
    words = build_tokenizer()
    ids = dict(zip((BEGIN, END, PAD), words.convert_tokens_to_ids([BEGIN, END, PAD]), strict=True))
    text = LlamaConfig(
        vocab_size=len(words), hidden_size=WIDTH, intermediate_size=2 * WIDTH, num_hidden_layers=LAYERS,
        num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=2048, initializer_range=0.05,
        bos_token_id=ids[BEGIN], eos_token_id=ids[END], pad_token_id=ids[PAD],
    )  # fmt: skip
    trained = CLIPVisionModel.from_pretrained(tower, dtype=torch.float32)
    config = LlavaConfig(
        vision_config=trained.config, text_config=text, image_seq_length=(SIZE // PATCH) ** 2,
        image_token_index=words.convert_tokens_to_ids(IMAGE), vision_feature_layer=-1,
    )  # fmt: skip
    model = LlavaForConditionalGeneration(config).eval()
    model.model.vision_tower.load_state_dict(trained.state_dict())
    side = {"height": SIZE, "width": SIZE}
    pictures = CLIPImageProcessor(
        size=side, do_center_crop=False, crop_size=side, image_mean=_HALF, image_std=_HALF
    )
    processor = LlavaProcessor(
        pictures, words, patch_size=PATCH, vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )  # fmt: skip
    return MultimodalModel("llava", model, processor, adapter_of(config, "llava"))
