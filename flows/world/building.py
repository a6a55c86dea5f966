"""Tiny multimodal models of real classes, untrained but for the tower."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    CLIPImageProcessor,
    CLIPVisionModel,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
)
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VisionTransformerPretrainedModel

from debias.models.base import MultimodalModel
from debias.models.opening import adapter_of

from .tower import LLAVA, MERGE, PATCH, QWEN, SIZE, tower_folder
from .words import BEGIN, END, IMAGE, PAD, build_tokenizer, token_ids

WIDTH, LAYERS, HEADS = 96, 4, 4
_HALF = [0.5, 0.5, 0.5]
_QWEN_MARKS = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
#: Qwen's form without a system sentence, in the tiny tokenizer's marks.
_QWEN_TEMPLATE = (
    "{% for message in messages %}USER: {% for part in message.content %}{% if part.type == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}\n{{ part.text }}{% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %} ASSISTANT:{% endif %}"
)
_TEXT: dict[str, Any] = {
    "hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS, "num_key_value_heads": HEADS, "max_position_embeddings": 2048,
    "initializer_range": 0.1,
}  # fmt: skip


def build_llava(models: Path, seed: int = 0) -> MultimodalModel:
    """LLaVA-1.5's class with a trained tower and a language model that knows nothing yet.

    Args:
        models: folder with the tower, as `flows.world.tower.train_tower` saves it.
        seed: of the weights.
    """
    words = build_tokenizer()
    ids = dict(zip((BEGIN, END, PAD), token_ids(words, BEGIN, END, PAD), strict=True))
    text = LlamaConfig(
        vocab_size=len(words), bos_token_id=ids[BEGIN], eos_token_id=ids[END], pad_token_id=ids[PAD], **_TEXT
    )
    trained = CLIPVisionModel.from_pretrained(tower_folder(models, LLAVA), dtype=torch.float32)
    config = LlavaConfig(
        vision_config=trained.config, text_config=text, image_seq_length=(SIZE // PATCH) ** 2,
        image_token_index=token_ids(words, IMAGE)[0], vision_feature_layer=-1,
    )  # fmt: skip
    torch.manual_seed(seed)
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
    return MultimodalModel(LLAVA, model, processor, adapter_of(config, LLAVA))


def build_qwen(models: Path, seed: int = 0) -> MultimodalModel:
    """Qwen2-VL's class; see `build_llava`. Four patches are one image token."""
    words = build_tokenizer(_QWEN_MARKS, begin=False)
    trained = Qwen2VisionTransformerPretrainedModel.from_pretrained(
        tower_folder(models, QWEN), dtype=torch.float32
    )
    text: dict[str, Any] = {
        **_TEXT, "vocab_size": len(words), "bos_token_id": None,
        "eos_token_id": token_ids(words, END)[0], "pad_token_id": token_ids(words, PAD)[0],
        "rope_parameters": {"rope_type": "default", "mrope_section": [4, 4, 4], "rope_theta": 10000.0},
    }  # fmt: skip
    names = ("vision_start_token_id", "vision_end_token_id", "image_token_id", "video_token_id")
    marks: dict[str, Any] = dict(zip(names, token_ids(words, *_QWEN_MARKS), strict=True))
    config = Qwen2VLConfig(vision_config=trained.config.to_dict(), text_config=text, **marks)
    torch.manual_seed(seed)
    model = Qwen2VLForConditionalGeneration(config).eval()
    model.model.visual.load_state_dict(trained.state_dict())
    pictures = Qwen2VLImageProcessor(
        patch_size=PATCH, merge_size=MERGE, min_pixels=SIZE**2, max_pixels=SIZE**2, image_mean=_HALF,
        image_std=_HALF,
    )  # fmt: skip
    processor = Qwen2VLProcessor(
        pictures,
        words,
        Qwen2VLVideoProcessor(patch_size=PATCH, merge_size=MERGE),
        chat_template=_QWEN_TEMPLATE,
    )
    return MultimodalModel(QWEN, model, processor, adapter_of(config, QWEN))


BUILDERS: dict[str, Callable[[Path, int], MultimodalModel]] = {LLAVA: build_llava, QWEN: build_qwen}


def tower_of(model: MultimodalModel) -> Any:
    """The vision tower's module."""
    (name,) = model.adapter.vision
    return model.network.get_submodule(name)


def projected(model: MultimodalModel, features: Tensor) -> Tensor:
    """A tower's features (B, 64, width) as the language model is given them, (image tokens of all pictures, width)."""
    (name,) = model.adapter.projector
    found: Tensor = model.network.get_submodule(name)(features)
    return found.flatten(0, -2)
