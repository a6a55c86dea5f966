"""Opening a multimodal model from a hub id or a folder; the adapter is picked by the config's class."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image
from transformers import AutoConfig, AutoProcessor, PretrainedConfig, ProcessorMixin

from storage.errors import CounterpoiseError

from .base import Adapter, MultimodalModel
from .bunny import BunnyAdapter
from .llava import LlavaAdapter
from .qwen import QwenAdapter

#: The first that fits is taken.
ADAPTERS: tuple[Adapter, ...] = (BunnyAdapter(), LlavaAdapter(), QwenAdapter())
_KNOWN = (
    "LlavaForConditionalGeneration (LLaVA-1.5, or Bunny in that layout), Qwen2VLForConditionalGeneration, "
    "Qwen2_5_VLForConditionalGeneration"
)


def open_model(
    name: str, dtype: torch.dtype | str = "auto", device: torch.device | str | None = None
) -> MultimodalModel:
    """Load model and processor, ready to be asked.

    Only safetensors are loaded, and no code that comes with a model is run.

    Args:
        name: hub id, or a folder as `save_pretrained` of model and processor writes it.
        dtype: of the weights; "auto" for that of the checkpoint.
        device: None for a GPU if there is one, else the CPU.

    Raises:
        CounterpoiseError: it is not to be had, of an unknown class, lacks weights, or has no image processor that works.
    """
    config = _config(name)
    adapter = adapter_of(config, name)
    processor = _processor(name)
    model_class = adapter.model_class(config)
    try:
        loaded: Any = model_class.from_pretrained(
            name,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            attn_implementation="sdpa",
            output_loading_info=True,
        )
    except Exception as error:
        raise CounterpoiseError(
            f"model {name!r}: its weights cannot be loaded ({_reason(error)}); safetensors that fit its config.json are "
            "wanted: download it again, or save it with safe_serialization=True."
        ) from error
    model, found = loaded
    if missing := sorted(found["missing_keys"]):
        raise CounterpoiseError(
            f"model {name!r}: {len(missing)} of its weights are missing, such as {missing[0]}, and would be random; a "
            f"checkpoint of {model_class.__name__} is wanted: save it in that layout."
        )
    model.eval().to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    opened = MultimodalModel(name, model, processor, adapter)
    _check_picture(opened)
    return opened


def adapter_of(config: PretrainedConfig, name: str) -> Adapter:
    """The family of a config.

    Raises:
        CounterpoiseError: there is none.
    """
    for adapter in ADAPTERS:
        if adapter.fits(config):
            return adapter
    given = ", ".join(config.architectures or [config.model_type])
    raise CounterpoiseError(f"model {name!r}: it is a {given}; wanted is one of {_KNOWN}.")


def model_type(name: str) -> str:
    """The type in a model's config, such as qwen2_vl.

    Raises:
        CounterpoiseError: there is no config of a known kind.
    """
    return str(_config(name).model_type)


def _config(name: str) -> PretrainedConfig:
    try:
        return AutoConfig.from_pretrained(name, trust_remote_code=False)
    except Exception as error:
        raise CounterpoiseError(
            f"model {name!r}: neither a folder with a config.json of a known kind here nor to be had from the hub "
            f"({_reason(error)}); wanted is one of {_KNOWN}: check the path or id, the network and HF_HUB_OFFLINE."
        ) from error


def _processor(name: str) -> ProcessorMixin:
    try:
        processor = AutoProcessor.from_pretrained(name, trust_remote_code=False)
    except Exception as error:
        raise CounterpoiseError(
            f"model {name!r}: its processor cannot be loaded ({_reason(error)}); an image processor "
            "(preprocessor_config.json) and a tokenizer beside the weights are wanted: copy the model again, whole."
        ) from error
    if getattr(processor, "image_processor", None) is None:
        raise CounterpoiseError(
            f"model {name!r}: it has no image processor, so it cannot be shown pictures; give a multimodal model, with "
            "its preprocessor_config.json."
        )
    return processor


def _check_picture(model: MultimodalModel) -> None:
    """Refuse a processor whose config lacks what pictures need, before the first real one."""
    try:
        tokens = model.encode(Image.new("RGB", (64, 64))).tokens
    except Exception as error:
        raise CounterpoiseError(
            f"model {model.name!r}: its processor cannot take a picture ({_reason(error)}); copy processor_config.json and "
            "preprocessor_config.json of the published model again."
        ) from error
    if not tokens:
        raise CounterpoiseError(
            f"model {model.name!r}: a picture is no token in its prompts; the tokenizer has to know the config's image "
            f"token {model.image_token_id}: copy tokenizer and config.json of one model."
        )


def _reason(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
