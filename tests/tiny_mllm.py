"""Random multimodal models of the real classes, small enough for a test, with processors of the real classes."""

from __future__ import annotations

import string
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    ProcessorMixin,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
    SiglipImageProcessor,
    SiglipVisionConfig,
)

QWEN_MARKS = (
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
QWEN_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{% for part in message.content %}"
    "{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
#: Of random weights: wide enough for a picture to change the answer.
SPREAD = 0.2
Made = tuple[PreTrainedModel, ProcessorMixin]


def tokenizer(marks: tuple[str, ...], begin: bool) -> PreTrainedTokenizerFast:
    """Byte-level, with a token for each letter behind a space, so that letters are one token and words several."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    letters = [f"Ġ{letter}" for letter in string.ascii_uppercase]
    vocabulary = {token: number for number, token in enumerate([*alphabet, *letters])}
    made = Tokenizer(models.BPE(vocabulary, [("Ġ", letter) for letter in string.ascii_uppercase]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(mark, special=True) for mark in ("<s>", "</s>", *marks)])
    if begin:
        made.post_processor = processors.TemplateProcessing(
            "<s> $A", special_tokens=[("<s>", made.token_to_id("<s>"))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<s>" if begin else None, eos_token="</s>", pad_token="</s>"
    )


def _llama(words: PreTrainedTokenizerFast, width: int, layers: int) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=len(words), hidden_size=width, intermediate_size=2 * width, num_hidden_layers=layers,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=4096,
        initializer_range=SPREAD, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip


def _vision(width: int, size: int) -> dict[str, float]:
    return {
        "hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": 2, "num_attention_heads": 4,
        "image_size": size, "patch_size": 14, "initializer_range": SPREAD,
    }  # fmt: skip


def llava(seed: int = 0, width: int = 32, layers: int = 2, size: int = 56) -> Made:
    """LLaVA-1.5's class: a CLIP tower with a class token; (size / 14)^2 image tokens."""
    torch.manual_seed(seed)
    words = tokenizer(("<image>",), begin=True)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**_vision(width, size)), text_config=_llama(words, width, layers),
        image_token_index=words.convert_tokens_to_ids("<image>"), image_seq_length=(size // 14) ** 2,
    )  # fmt: skip
    pictures = CLIPImageProcessor(size={"shortest_edge": size}, crop_size={"height": size, "width": size})
    processor = LlavaProcessor(
        pictures,
        words,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    return _joined(config), processor


def bunny(seed: int = 0) -> Made:
    """Bunny's parts in LLaVA's class: a SigLIP tower, which has no class token."""
    torch.manual_seed(seed)
    words = tokenizer(("<image>",), begin=True)
    config = LlavaConfig(
        vision_config=SiglipVisionConfig(**_vision(32, 56)), text_config=_llama(words, 32, 2),
        image_token_index=words.convert_tokens_to_ids("<image>"), vision_feature_select_strategy="full",
    )  # fmt: skip
    pictures = SiglipImageProcessor(size={"height": 56, "width": 56})
    processor = LlavaProcessor(pictures, words, patch_size=14, vision_feature_select_strategy="full")
    return _joined(config), processor


def _joined(config: LlavaConfig) -> LlavaForConditionalGeneration:
    model = LlavaForConditionalGeneration(config).eval()
    model.model.multi_modal_projector.linear_2.weight.data *= (
        8  # drawn by another rule; so that pictures count
    )
    return model


def qwen2(seed: int = 0) -> Made:
    """Qwen2-VL's class."""
    return _qwen(seed, Qwen2VLConfig, Qwen2VLForConditionalGeneration, Qwen2VLProcessor)


def qwen2_5(seed: int = 0) -> Made:
    """Qwen2.5-VL's class."""
    return _qwen(seed, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor)


def _qwen(seed: int, config_class: type, model_class: type, processor_class: type) -> Made:
    torch.manual_seed(seed)
    words = tokenizer(QWEN_MARKS, begin=False)
    depth = {
        "depth": 2,
        "num_heads": 4,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "initializer_range": SPREAD,
    }
    if config_class is Qwen2VLConfig:
        vision = {**depth, "embed_dim": 32, "hidden_size": 64, "mlp_ratio": 2}
    else:
        sizes = {"hidden_size": 32, "out_hidden_size": 64, "intermediate_size": 64}
        vision = {**depth, **sizes, "window_size": 56, "fullatt_block_indexes": [1]}
    text = {
        "vocab_size": len(words), "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 4096,
        "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0},
        "initializer_range": SPREAD, "bos_token_id": None, "eos_token_id": None,
    }  # fmt: skip
    ids = dict(zip(("vision_start_token_id", "vision_end_token_id", "image_token_id", "video_token_id"),
                   words.convert_tokens_to_ids(list(QWEN_MARKS[2:])), strict=True))  # fmt: skip
    config = config_class(vision_config=vision, text_config=text, **ids)
    pictures = Qwen2VLImageProcessor(min_pixels=28 * 28, max_pixels=28 * 28 * 16)
    processor = processor_class(pictures, words, Qwen2VLVideoProcessor(), chat_template=QWEN_TEMPLATE)
    return model_class(config).eval(), processor


MAKERS: dict[str, Callable[..., Made]] = {"llava": llava, "bunny": bunny, "qwen2": qwen2, "qwen2_5": qwen2_5}


def save(maker: str, folder: Path) -> Path:
    """Save a tiny model with its processor, as published ones lie in a folder."""
    model, processor = MAKERS[maker]()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def photograph(seed: int, size: tuple[int, int] = (84, 56)) -> Image.Image:
    """Noise."""
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return Image.fromarray(noise)
