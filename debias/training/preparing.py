"""The model as it is trained: precision, which parts move, LoRA, and a hash of its weights."""

from __future__ import annotations

import hashlib
import warnings
from typing import cast

import torch
from peft import LoraConfig, get_peft_model
from transformers import PreTrainedModel

from storage.errors import CounterpoiseError

from ..models.base import MultimodalModel
from ..models.opening import open_model
from .recipe import Recipe


def prepare(recipe: Recipe) -> MultimodalModel:
    """Open the recipe's model on the CPU and set which of its parameters are trained.

    Full fine-tuning holds weights in float32, since rates such as 5e-7 are below what bfloat16 resolves; `bf16` then
    computes in it by autocast. With LoRA the frozen weights are in bfloat16 themselves.

    Raises:
        CounterpoiseError: it cannot be opened, or nothing of it would be trained.
    """
    half = recipe.bf16 and recipe.lora is not None
    model = open_model(recipe.model, torch.bfloat16 if half else torch.float32, "cpu")
    _free(model, recipe)
    torch.manual_seed(recipe.seed)  # of LoRA's first matrices
    if recipe.lora is not None:
        with warnings.catch_warnings():
            # peft asks by a name that transformers has come to deprecate
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
            model.model = cast(PreTrainedModel, get_peft_model(model.model, _lora(model, recipe)))
    return model


def _free(model: MultimodalModel, recipe: Recipe) -> None:
    """Let the gradients of the parts that are trained flow, and no others."""
    trained = {
        "vision": recipe.train.vision,
        "projector": recipe.train.projector,
        "language": recipe.train.language,
    }
    for name, parameter in model.model.named_parameters():
        parameter.requires_grad_(trained[model.part_of(name)] and recipe.lora is None)


def _lora(model: MultimodalModel, recipe: Recipe) -> LoraConfig:
    assert recipe.lora is not None
    whole = [
        name
        for part, names in (("projector", model.adapter.projector), ("vision", model.adapter.vision))
        if getattr(recipe.train, part)
        for name in names
    ]
    return LoraConfig(
        r=recipe.lora.rank,
        lora_alpha=recipe.lora.alpha,
        lora_dropout=recipe.lora.dropout,
        target_modules=model.lora_targets(),
        modules_to_save=whole or None,
    )


def merged(model: MultimodalModel) -> MultimodalModel:
    """The model without PEFT's wrapping, LoRA's matrices added to the weights they adapt; `model` is used up."""
    merge = getattr(model.model, "merge_and_unload", None)
    if merge is None:
        return model
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it was wrapped, which is known
        return MultimodalModel(model.name, merge(), model.processor, model.adapter)


def weights_sha256(model: MultimodalModel) -> str:
    """A hash over names, types, shapes and bytes of all parameters."""
    digest = hashlib.sha256()
    for name, parameter in sorted(model.model.named_parameters()):
        value = parameter.detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def check_parts(recipe: Recipe) -> None:
    """Refuse a recipe that trains nothing, or LoRA without the part that it adapts.

    Raises:
        CounterpoiseError: names the key.
    """
    parts = recipe.train
    if recipe.lora is not None and not parts.language:
        raise CounterpoiseError(
            "train.language: given false, wanted true with lora, which adapts that part; give true, or leave lora out."
        )
    if not (parts.vision or parts.projector or parts.language):
        raise CounterpoiseError(
            "train: vision, projector and language are all false, one at least has to be true."
        )
