"""What a multimodal language model is to the rest: its parts by name, its prompt form, its image tokens and positions.

Notation: B images, P tokens of a prompt up to where prompts part (image tokens among them).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from storage.errors import CounterpoiseError

#: Linear layers of a Llama-like block that LoRA adapts; reference: Hu et al. 2022, as LLaVA-1.5's recipe applies it.
LANGUAGE_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class Adapter(Protocol):
    """A family of models.

    Attributes:
        name: such as "llava".
        vision: names of the modules of the vision tower, without the projector.
        projector: names of the modules from image features to the language model.
        language: names of the modules of the language model, with its head.
    """

    name: str
    vision: tuple[str, ...]
    projector: tuple[str, ...]
    language: tuple[str, ...]

    def fits(self, config: PretrainedConfig) -> bool:
        """Whether a model of this config is of the family."""

    def model_class(self, config: PretrainedConfig) -> type[PreTrainedModel]:
        """The class of transformers to load it with."""

    def form(self, image_token: str, instruction: str) -> str:
        """The family's own prompt, for processors without a chat template; ends where the answer begins."""

    def positions(self, model: PreTrainedModel, tokens: Tensor, image: Mapping[str, Tensor]) -> Tensor:
        """Positions of the P tokens of one prompt with one image: (P,), or (3, P) for time, height and width.

        The token after them has the position `positions.max() + 1` on every axis.
        """


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """What the processor makes of an image.

    Attributes:
        inputs: keyword arguments of the model, such as pixel_values; of several images, joined along the first axis.
        tokens: how many image tokens stand for it in a prompt.
    """

    inputs: Mapping[str, Tensor]
    tokens: int


@dataclass(slots=True)
class MultimodalModel:
    """A model, its processor and its family.

    Attributes:
        name: hub id or folder.
        model: the class of transformers itself, or PEFT's around it.
        processor: with image processor and tokenizer.
        adapter: the family.
    """

    name: str
    model: PreTrainedModel
    processor: Any  # a ProcessorMixin; its types leave out what every class of it has
    adapter: Adapter

    @property
    def network(self) -> PreTrainedModel:
        """The model without PEFT's wrapping."""
        unwrap = getattr(self.model, "get_base_model", None)
        return self.model if unwrap is None else unwrap()

    @property
    def image_token_id(self) -> int:
        """Token that stands for a piece of an image."""
        return int(self.network.config.image_token_id)

    @property
    def device(self) -> torch.device:
        """Where inputs have to be."""
        return self.network.device

    def prompt(self, instruction: str) -> str:
        """Image and instruction as the model is asked them, up to where its answer begins.

        By the processor's chat template, or the family's own form where it has none. The image stands there as one token.

        Raises:
            CounterpoiseError: the prompt does not hold the image token once.
        """
        image_token = str(self.processor.image_token)
        if getattr(self.processor, "chat_template", None):
            parts = [{"type": "image"}, {"type": "text", "text": instruction}]
            message = [{"role": "user", "content": parts}]
            text = str(
                self.processor.apply_chat_template(message, add_generation_prompt=True, tokenize=False)
            )
        else:
            text = self.adapter.form(image_token, instruction)
        if (count := text.count(image_token)) != 1:
            raise CounterpoiseError(
                f"model {self.name!r}: its prompt holds {image_token} {count} times, once is wanted: leave it out of "
                "questions and options, and give the model a chat template that shows the image."
            )
        return text

    def tokens(self, text: str) -> list[int]:
        """Tokens of a whole text, with the tokenizer's beginning where the text has none."""
        tokenizer = self.processor.tokenizer
        begun = bool(tokenizer.bos_token) and text.startswith(tokenizer.bos_token)
        return list(tokenizer(text, add_special_tokens=not begun)["input_ids"])

    def encode(self, image: Image.Image) -> EncodedImage:
        """An RGB image as the model's inputs, on the CPU."""
        found = self.processor(images=image, text=str(self.processor.image_token), return_tensors="pt")
        count = int((found["input_ids"] == self.image_token_id).sum())
        text = {"input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids"}
        return EncodedImage({name: value for name, value in found.items() if name not in text}, count)

    def part_of(self, name: str) -> str:
        """Which part a module or parameter belongs to: "vision", "projector" or "language".

        Raises:
            CounterpoiseError: it belongs to none.
        """
        parts = {
            "projector": self.adapter.projector,
            "vision": self.adapter.vision,
            "language": self.adapter.language,
        }
        for part, modules in parts.items():
            if any(name == module or name.startswith(f"{module}.") for module in modules):
                return part
        raise CounterpoiseError(f"model {self.name!r}: {name!r} is in none of its parts {parts}.")

    def lora_targets(self) -> list[str]:
        """Full names of the linear layers of the language model's blocks, for PEFT's `target_modules`.

        Full, since the last parts of names alone (`gate_proj`) are found in some vision towers as well.
        """
        return [
            name
            for name, module in self.network.named_modules()
            if isinstance(module, nn.Linear)
            and name.rpartition(".")[2] in LANGUAGE_LAYERS
            and self.part_of(name) == "language"
        ]

    def positions(self, tokens: Tensor, image: Mapping[str, Tensor]) -> Tensor:
        """See `Adapter.positions`."""
        return self.adapter.positions(self.network, tokens, image)

    def move(self, image: EncodedImage) -> dict[str, Any]:
        """Inputs of an image on the model's device; what is no number of anything in the model's precision."""
        return {
            name: value.to(self.device, self.network.dtype if value.is_floating_point() else None)
            for name, value in image.inputs.items()
        }
