"""Adapters: models of the real classes, tiny and with weights, or of full size without."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from tiny_mllm import MAKERS, photograph, save
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    PretrainedConfig,
    Qwen2_5_VLConfig,
    Qwen2VLConfig,
    SiglipVisionConfig,
)

from debias.asking import Asker
from debias.models.base import LANGUAGE_LAYERS, MultimodalModel
from debias.models.opening import adapter_of, open_model
from storage import CounterpoiseError

FAMILIES = {"llava": "llava", "bunny": "bunny", "qwen2": "qwen", "qwen2_5": "qwen"}


@pytest.fixture(scope="module", params=sorted(MAKERS))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(request.param, tmp_path_factory.mktemp("model") / request.param)


def test_a_folder_opens_as_what_it_is(folder: Path) -> None:
    model = open_model(str(folder), dtype=torch.float32, device="cpu")
    made, _ = MAKERS[folder.name]()
    assert type(model.model) is type(made)
    assert model.adapter.name == FAMILIES[folder.name]
    assert not model.model.training and model.device.type == "cpu"
    state = model.model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in made.state_dict().items())


def test_it_opens_in_the_precision_asked_for(folder: Path) -> None:
    model = open_model(str(folder), dtype=torch.bfloat16, device="cpu")
    assert model.network.dtype == torch.bfloat16
    (choice,) = Asker(model).ask([photograph(0)], [("chef", "arts")])
    exact = Asker(open_model(str(folder), torch.float32, "cpu")).ask([photograph(0)], [("chef", "arts")])
    assert choice.log_probabilities == pytest.approx(dict(exact[0].log_probabilities), abs=0.3)


def test_prompt_and_image_tokens(folder: Path) -> None:
    model = open_model(str(folder), torch.float32, "cpu")
    prompt = model.prompt("Who is it?")
    ends = {
        "llava": "USER: <image>\nWho is it? ASSISTANT:",
        "bunny": "user's questions. USER: <image>\nWho is it? ASSISTANT:",
        "qwen": "<|vision_start|><|image_pad|><|vision_end|>Who is it?<|im_end|>\n<|im_start|>assistant\n",
    }
    assert prompt.endswith(ends[model.adapter.name])
    encoded = model.encode(photograph(0, (84, 56)))
    tokens = {"llava": 4 * 4, "bunny": 4 * 4, "qwen": 3 * 2}  # 56 / 14 each way; 84 x 56 by 28
    assert encoded.tokens == tokens[model.adapter.name]


def test_the_familys_own_form_where_there_is_no_template(folder: Path) -> None:
    model = open_model(str(folder), torch.float32, "cpu")
    model.processor.chat_template = None
    assert model.prompt("Who?").count("Who?") == 1
    (choice,) = Asker(model).ask([photograph(0)], [("chef", "arts")])
    assert choice.name in ("chef", "arts")


def test_a_template_that_begins_the_text_itself_is_not_begun_twice() -> None:
    model, processor = MAKERS["llava"]()
    opened = MultimodalModel("llava", model, processor, adapter_of(model.config, "llava"))
    begin = processor.tokenizer.bos_token_id
    assert opened.tokens("<s>USER").count(begin) == 1 and opened.tokens("USER").count(begin) == 1


def test_every_parameter_is_of_a_part(folder: Path) -> None:
    model = open_model(str(folder), torch.float32, "cpu")
    parts = Counter(model.part_of(name) for name, _ in model.model.named_parameters())
    assert set(parts) == {"vision", "projector", "language"}
    assert model.part_of("lm_head.weight") == "language"
    with pytest.raises(CounterpoiseError, match=r"'model\.lm' is in none of its parts"):
        model.part_of("model.lm")


# peft asks by the name that transformers has come to deprecate.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_lora_adapts_the_language_model_alone(folder: Path) -> None:
    model = open_model(str(folder), torch.float32, "cpu")
    (before,) = Asker(model).ask([photograph(0)], [("chef", "arts")])
    targets = model.lora_targets()
    assert len(targets) == 2 * len(LANGUAGE_LAYERS)
    model.model = get_peft_model(
        model.model, LoraConfig(r=2, target_modules=targets, init_lora_weights=False)
    )
    trained = [name for name, value in model.network.named_parameters() if value.requires_grad]
    assert len(trained) == 2 * len(targets)
    assert {model.part_of(name) for name in trained} == {"language"}
    (after,) = Asker(model).ask([photograph(0)], [("chef", "arts")])
    assert after.log_probabilities != pytest.approx(dict(before.log_probabilities), abs=1e-3)
    model.model.disable_adapter_layers()
    (without,) = Asker(model).ask([photograph(0)], [("chef", "arts")])
    assert without.log_probabilities == pytest.approx(dict(before.log_probabilities), abs=1e-5)


def llava(layers: int, width: int, inner: int, heads: int) -> LlavaConfig:
    vision = CLIPVisionConfig(
        hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, image_size=336,
        patch_size=14, projection_dim=768,
    )  # fmt: skip
    text = LlamaConfig(
        vocab_size=32064, hidden_size=width, intermediate_size=inner, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=heads,
    )  # fmt: skip
    return LlavaConfig(vision_config=vision, text_config=text)


def bunny() -> LlavaConfig:
    vision = SiglipVisionConfig(
        hidden_size=1152, intermediate_size=4304, num_hidden_layers=27, num_attention_heads=16, image_size=384,
        patch_size=14,
    )  # fmt: skip
    text = LlamaConfig(
        vocab_size=128256, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
        num_key_value_heads=8,
    )  # fmt: skip
    return LlavaConfig(vision_config=vision, text_config=text, vision_feature_select_strategy="full")


QWEN_TEXT = {
    "vocab_size": 152064, "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
    "num_attention_heads": 28, "num_key_value_heads": 4,
    "rope_parameters": {"rope_type": "default", "mrope_section": [16, 24, 24], "rope_theta": 1e6},
}  # fmt: skip
QWEN_IDS = {"vision_start_token_id": 151652, "image_token_id": 151655, "video_token_id": 151656}
FULL: dict[str, tuple[PretrainedConfig, str, float, float, int]] = {
    # config, family, billions of parameters, millions of the projector, blocks of the language model
    "LLaVA-1.5 7B": (llava(32, 4096, 11008, 32), "llava", 7.06, 21.0, 32),
    "LLaVA-1.5 13B": (llava(40, 5120, 13824, 40), "llava", 13.35, 31.5, 40),
    "Bunny-8B": (bunny(), "bunny", 8.48, 21.5, 32),
    "Qwen2-VL-7B": (Qwen2VLConfig(text_config=QWEN_TEXT, **QWEN_IDS), "qwen", 8.29, 44.6, 28),
    "Qwen2.5-VL-7B": (
        Qwen2_5_VLConfig(
            text_config=QWEN_TEXT,
            vision_config={"hidden_size": 1280, "intermediate_size": 3420, "out_hidden_size": 3584},
            **QWEN_IDS,
        ),
        "qwen", 8.29, 44.6, 28,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FULL)
def test_models_of_full_size(name: str) -> None:
    config, family, billions, millions, blocks = FULL[name]
    adapter = adapter_of(config, name)
    with torch.device("meta"):
        model = adapter.model_class(config)(config)
    opened = MultimodalModel(name, model, None, adapter)  # type: ignore[arg-type]
    sizes: Counter[str] = Counter()
    for parameter, value in model.named_parameters():
        sizes[opened.part_of(parameter)] += value.numel()
    assert adapter.name == family
    assert sizes.total() / 1e9 == pytest.approx(billions, abs=0.01)
    assert sizes["projector"] / 1e6 == pytest.approx(millions, abs=0.1)
    targets = opened.lora_targets()
    assert len(targets) == blocks * len(LANGUAGE_LAYERS)
    assert all(target.startswith("model.language_model.layers.") for target in targets)


def test_a_model_without_an_image_processor_is_refused(tmp_path: Path) -> None:
    folder = save("llava", tmp_path / "model")
    gone = [path for path in folder.iterdir() if "processor" in path.name]
    assert gone
    for path in gone:
        path.unlink()
    with pytest.raises(CounterpoiseError, match="image processor"):
        open_model(str(folder))


def test_a_model_of_an_unknown_class_is_refused(tmp_path: Path) -> None:
    LlamaConfig(architectures=["LlamaForCausalLM"]).save_pretrained(tmp_path)
    with pytest.raises(CounterpoiseError, match="it is a LlamaForCausalLM; wanted is one of LlavaForCond"):
        open_model(str(tmp_path))


def test_code_that_comes_with_a_model_is_not_run(tmp_path: Path) -> None:
    config = {"model_type": "bunny-llama", "auto_map": {"AutoConfig": "bunny.BunnyConfig"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "bunny.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass BunnyConfig: ...")
    with pytest.raises(CounterpoiseError, match="wanted is one of"):
        open_model(str(tmp_path))
    assert not (tmp_path / "ran").exists()


def test_what_is_not_there_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(CounterpoiseError, match="nor to be had from the hub") as caught:
        open_model(str(tmp_path / "nothing"))
    assert "\n" not in str(caught.value)


def test_weights_that_are_pickles_are_refused(tmp_path: Path) -> None:
    folder = save("llava", tmp_path / "model")
    model, _ = MAKERS["llava"]()
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(CounterpoiseError, match="safetensors that fit its config"):
        open_model(str(folder))


def test_missing_weights_are_refused_not_drawn(tmp_path: Path) -> None:
    folder = save("llava", tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    gone = next(name for name in weights if "projector" in name)
    save_file(
        {name: value for name, value in weights.items() if name != gone},
        folder / "model.safetensors",
        {"format": "pt"},
    )
    with pytest.raises(CounterpoiseError, match=r"1 of its weights are missing, such as .*projector"):
        open_model(str(folder))


def test_processors_that_cannot_take_a_picture_are_refused(tmp_path: Path) -> None:
    folder = save("llava", tmp_path / "model")
    stored = json.loads((folder / "processor_config.json").read_text())
    (folder / "processor_config.json").write_text(json.dumps({**stored, "patch_size": None}))
    with pytest.raises(CounterpoiseError, match="its processor cannot take a picture"):
        open_model(str(folder))
    (folder / "processor_config.json").write_text(json.dumps(stored))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "image_token_index": 5}))
    with pytest.raises(CounterpoiseError, match="has to know the config's image token 5"):
        open_model(str(folder))
