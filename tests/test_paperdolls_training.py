"""How the embedded models are trained: resume, the patch code, the tokenizer, folders that load elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import open_clip
import pytest
import torch
from diffusers import AutoencoderTiny
from torch import Tensor, nn
from torch.nn import functional

from generators.concepts import CONCEPTS
from generators.paperdolls import autoencoder, training
from generators.paperdolls.autoencoder import patch_directions, set_encoder
from generators.paperdolls.data import AXES, pixels, renders
from generators.paperdolls.diffusion import build_tokenizer
from generators.paperdolls.training import Schedule, generator_for, train
from generators.plan import cells
from generators.prompts import TEMPLATES, fill
from storage.errors import CounterpoiseError

SCHEDULE = Schedule(steps=11, batch=4, rate=0.05)
Loss = Callable[[int, torch.Generator], Tensor]


# The loop


def a_model(seed: int = 0) -> nn.ModuleDict:
    torch.manual_seed(seed)
    return nn.ModuleDict({"model": nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 1))})


def loss_of(modules: nn.ModuleDict, seen: list[int], stop: int | None = None) -> Loss:
    """Learn the sum of three numbers, and be interrupted at a step."""

    def loss(step: int, generator: torch.Generator) -> Tensor:
        seen.append(step)
        if step == stop:
            raise KeyboardInterrupt
        given = torch.randn(8, 3, generator=generator)
        return (modules["model"](given).squeeze(1) - given.sum(1)).square().mean()

    return loss


def run(
    folder: Path, stop: int | None = None, seed: int = 0, schedule: Schedule = SCHEDULE
) -> tuple[list[Tensor], list[int]]:
    modules, seen = a_model(seed), []
    train("stage", modules, loss_of(modules, seen, stop), SCHEDULE, folder, seed)
    return [value.clone() for value in modules.state_dict().values()], seen


def same(first: list[Tensor], second: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "CHECKPOINT_EVERY", 4)


@pytest.mark.parametrize(("stop", "again"), [(2, 0), (4, 4), (6, 4), (10, 8)])
def test_a_stopped_run_continues_as_if_it_had_not_been(tmp_path: Path, stop: int, again: int) -> None:
    whole, _ = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "stopped", stop=stop)
    torch.rand(7)  # another process is at another place of torch's own generator
    resumed, seen = run(tmp_path / "stopped")
    assert seen == list(range(again, 11))
    assert same(whole, resumed)


def test_a_run_stopped_twice_is_the_same_too(tmp_path: Path) -> None:
    whole, _ = run(tmp_path / "whole")
    for stop in (5, 9):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "stopped", stop=stop)
    assert same(whole, run(tmp_path / "stopped")[0])


def test_a_finished_stage_is_not_trained_again(tmp_path: Path) -> None:
    first, _ = run(tmp_path)
    again, seen = run(tmp_path)
    assert seen == [] and same(first, again)


def test_the_seed_decides_the_weights(tmp_path: Path) -> None:
    assert not same(run(tmp_path / "a", seed=0)[0], run(tmp_path / "b", seed=1)[0])


def test_a_checkpoint_of_another_seed_is_refused(tmp_path: Path) -> None:
    run(tmp_path, seed=0)
    with pytest.raises(CounterpoiseError, match=r"made with seed 0, wanted 1; .*another checkpoint folder"):
        run(tmp_path, seed=1)


def test_a_half_written_checkpoint_is_never_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, stop=5)
    before = (tmp_path / "stage.checkpoint.pt").read_bytes()

    def torn(state: object, path: Path) -> None:
        Path(path).write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", torn)
    with pytest.raises(OSError, match="no space"):
        run(tmp_path)
    assert (tmp_path / "stage.checkpoint.pt").read_bytes() == before


def test_training_learns_and_returns_the_average(tmp_path: Path) -> None:
    torch.manual_seed(0)
    modules = nn.ModuleDict({"model": nn.Linear(3, 1)})

    def loss(step: int, generator: torch.Generator) -> Tensor:
        given = torch.randn(16, 3, generator=generator)
        return (modules["model"](given).squeeze(1) - given.sum(1)).square().mean()

    made = train("stage", modules, loss, Schedule(steps=150, batch=16, rate=0.1, ema=0.9), tmp_path, 0)
    assert made["model"].weight.tolist()[0] == pytest.approx([1, 1, 1], abs=0.1)
    kept = torch.load(tmp_path / "stage.checkpoint.pt", weights_only=True)
    assert torch.equal(made["model"].weight, kept["ema"]["model.weight"])
    assert not torch.equal(made["model"].weight, kept["modules"]["model.weight"])
    assert not made.training


def test_every_step_draws_anew_and_always_the_same() -> None:
    drawn = [torch.rand(1, generator=generator_for(s, "stage", k)).item() for s in (0, 1) for k in range(20)]
    assert len(set(drawn)) == 40
    assert drawn[3] == torch.rand(1, generator=generator_for(0, "stage", 3)).item()


# The autoencoder


@pytest.fixture(scope="module")
def code() -> tuple[Tensor, Tensor]:
    return patch_directions(pictures=150)


def build_quickly(monkeypatch: pytest.MonkeyPatch, code: tuple[Tensor, Tensor]) -> AutoencoderTiny:
    monkeypatch.setattr(autoencoder, "patch_directions", lambda: code)
    torch.manual_seed(0)
    return autoencoder.build()


@torch.no_grad()
def test_the_encoder_is_the_linear_patch_code(
    monkeypatch: pytest.MonkeyPatch, code: tuple[Tensor, Tensor]
) -> None:
    torch.manual_seed(1)
    directions, mean = torch.randn(16, 192), torch.rand(192)
    model = build_quickly(monkeypatch, code)
    set_encoder(model, directions, mean)
    images = torch.rand(2, 3, 128, 128) * 2 - 1
    patches = functional.unfold((images + 1) / 2, 8, stride=8).transpose(1, 2)
    expected = ((patches - mean) @ directions.T).transpose(1, 2).reshape(2, 16, 16, 16)
    assert torch.allclose(model.encode(images).latents, expected, atol=2e-4)


@torch.no_grad()
def test_the_code_keeps_what_flat_art_has(
    monkeypatch: pytest.MonkeyPatch, code: tuple[Tensor, Tensor]
) -> None:
    """On unseen pictures: channels apart, latents that the decoder can take, most of the variance kept."""
    directions, mean = code
    images = pixels(renders(range(40)))
    latents = build_quickly(monkeypatch, code).encode(images).latents
    assert latents.std().item() == pytest.approx(0.4, rel=0.15)
    assert latents.abs().max() < 4
    flat = latents.transpose(0, 1).flatten(1)
    apart = torch.corrcoef(flat) - torch.eye(16)
    assert apart.abs().max() < 0.25
    patches = functional.unfold(images / 2 + 0.5, 8, stride=8).transpose(1, 2).flatten(0, 1) - mean
    back = (patches @ directions.T) @ torch.linalg.pinv(directions).T
    assert ((patches - back).square().sum() / patches.square().sum()).item() < 0.08


def test_the_code_does_not_depend_on_the_solvers_sign(code: tuple[Tensor, Tensor]) -> None:
    assert (code[0].gather(1, code[0].abs().argmax(1, keepdim=True)) > 0).all()


def test_the_decoder_learns_from_noisy_latents(
    monkeypatch: pytest.MonkeyPatch, code: tuple[Tensor, Tensor]
) -> None:
    model = build_quickly(monkeypatch, code)
    images = pixels(renders(range(2)))
    first, again, other = (
        autoencoder.reconstruction_loss(model, images, generator_for(s, "x")) for s in (0, 0, 1)
    )
    assert first.item() == again.item() != other.item()
    first.backward()
    assert all(p.grad is None for p in model.encoder.parameters())
    assert all(p.grad is not None for p in model.decoder.parameters())


# Words


TEXTS = [
    "A photo of a young Middle Eastern woman working as a chef in a kitchen, with red balloons, at night",
    "A PICTURE of an old  Latino man's portrait;  it's 1920s' art -- by day",
    "facing the camera, natural light",
    "Räucherkäse, naïve café, $5.50 & 12345",
    "very " * 100 + "long",
]


def test_the_tokenizer_gives_the_ids_of_open_clips_own() -> None:
    """The second one pads with 0 as open_clip does, so all 77 agree; long texts are cut alike."""
    own = open_clip.tokenizer.SimpleTokenizer()
    phrases = [phrase for concept in CONCEPTS.values() for phrase in concept.phrases[::3]]
    texts = [*TEXTS, *(fill(t, AXES, v, p) for t in TEMPLATES for v in cells(AXES)[::7] for p in phrases)]
    options = {"padding": "max_length", "truncation": True, "max_length": 77, "return_tensors": "pt"}
    expected = own(texts)
    assert torch.equal(build_tokenizer("!")(texts, **options).input_ids, expected)
    first = build_tokenizer("<|endoftext|>")([*texts, "Hey! You!!"], **options)
    kept = torch.where(first.attention_mask == 1, first.input_ids, 0)
    assert torch.equal(kept, own([*texts, "Hey! You!!"]))
    assert (first.input_ids[first.attention_mask == 0] == 49407).all()


def test_the_tokenizer_survives_its_folder(tmp_path: Path) -> None:
    made = build_tokenizer("!")
    made.save_pretrained(tmp_path)
    loaded = type(made).from_pretrained(tmp_path)
    assert loaded(TEXTS[:4]).input_ids == made(TEXTS[:4]).input_ids
    assert (loaded.pad_token, loaded.model_max_length) == ("!", 77)
