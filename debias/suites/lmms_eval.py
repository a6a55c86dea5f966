"""lmms-eval as a program: what it is installed from, how it is called, what its log says.

As version 0.7.3 is called: `python -m lmms_eval --model NAME --model_args K=V,... --tasks A,B --batch_size 1 --device D
--log_samples --output_path DIR`. It ends with status 0 also where it failed, so whether it worked is seen by its logs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from storage.errors import CounterpoiseError

NAME, VERSION = "lmms-eval", "0.7.3"
#: What its environment is installed from. decord is imported by its models and not required; transformers is what wrote
#: the models that are trained here, and what this was tried with.
REQUIREMENTS = (
    f"{NAME}=={VERSION}",
    "decord==0.6.0; platform_system != 'Darwin'",
    "eva-decord; platform_system == 'Darwin'",
    "transformers==5.23.0",
)
#: Prints versions as JSON; of its environment's python.
VERSIONS = (
    "import importlib.metadata as m, json; "
    "print(json.dumps({name: m.version(name) for name in ('lmms_eval', 'torch', 'transformers')}))"
)
#: `model_type` of a config to the model of lmms-eval that runs it.
MODELS = {"llava": "llava_hf", "qwen2_vl": "qwen2_vl", "qwen2_5_vl": "qwen2_5_vl"}
_TASK = re.compile(r"[\w*][\w*./-]*")
_ERROR = re.compile(r"Error during evaluation: (.*?)(?:\. Please set `--verbosity|$)", re.MULTILINE)
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_ASKED = re.compile(r"Model Responding:\s+\d+%\|[^|]*\|\s*(\d+)/(\d+)")
_SPLITS = set(",\"'{}[]\n")


@dataclass(frozen=True, slots=True)
class Backend:
    """A model as lmms-eval runs it.

    Attributes:
        name: of its `--model`.
        arguments: further ones for `--model_args`.
    """

    name: str
    arguments: Mapping[str, str]


def tasks_of(suite: str) -> list[str]:
    """Names in `lmms-eval:A,B`.

    Raises:
        CounterpoiseError: it is another suite, or a name is none, or given twice.
    """
    name, colon, rest = suite.partition(":")
    names = [one.strip() for one in rest.split(",")]
    wanted = f"wanted {NAME}:TASK,TASK,... such as {NAME}:vqav2_val,mmbench_en_dev"
    if name != NAME or not colon or not all(_TASK.fullmatch(one) for one in names):
        raise CounterpoiseError(f"--suite: given {suite!r}, {wanted}.")
    if len(set(names)) < len(names):
        raise CounterpoiseError(f"--suite: given {suite!r}, in which a task stands twice; {wanted}.")
    return names


def backend_of(given: str) -> Backend:
    """`NAME` or `NAME,KEY=VALUE,...`, as a user names a model of lmms-eval.

    Raises:
        CounterpoiseError: it is neither.
    """
    name, *rest = given.split(",")
    pairs = [part.partition("=") for part in rest]
    if not re.fullmatch(r"\w+", name) or not all(key and equals for key, equals, _ in pairs):
        raise CounterpoiseError(
            f"--suite-model: given {given!r}, wanted NAME or NAME,KEY=VALUE,... as {NAME} takes them."
        )
    return Backend(name, {key: value for key, _, value in pairs})


def backend_for(model_type: str, model: str) -> Backend:
    """The one for a config's class.

    Raises:
        CounterpoiseError: none is known.
    """
    if model_type not in MODELS:
        raise CounterpoiseError(
            f"model {model!r}: it is of type {model_type}, and which of {NAME}'s models runs that is known for "
            f"{', '.join(MODELS)} alone; name one with --suite-model."
        )
    return Backend(MODELS[model_type], {})


def command(
    python: str,
    model: str,
    backend: Backend,
    tasks: Sequence[str],
    output: Path,
    device: str,
    limit: int | None,
) -> list[str]:
    """The call.

    Args:
        python: of its environment.
        model: hub id or folder.
        backend: what runs it.
        tasks: names.
        output: folder of the logs.
        device: "cuda" or "cpu".
        limit: questions of each task; None for all.

    Raises:
        CounterpoiseError: a path has a character that lmms-eval takes for the end of an argument.
    """
    weights = str(Path(model).resolve()) if Path(model).is_dir() else model
    for path in (weights, str(output.resolve())):
        if found := sorted(_SPLITS & set(path)):
            raise CounterpoiseError(
                f"{path}: {NAME} cannot take a path with {found[0]!r} in it; give another name."
            )
    arguments = {"pretrained": weights, "device_map": device, **backend.arguments}
    return [
        python, "-m", "lmms_eval",
        "--model", backend.name,
        "--model_args", ",".join(f"{key}={value}" for key, value in arguments.items()),
        "--tasks", ",".join(tasks),
        "--batch_size", "1",
        "--device", device,
        *(() if limit is None else ("--limit", str(limit))),
        "--log_samples",
        "--output_path", str(output.resolve()),
    ]  # fmt: skip


def environment(given: Mapping[str, str]) -> dict[str, str]:
    """Variables for it: no modules of this environment; a token of the hub by the name that lmms-eval does not print."""
    found = {
        key: value for key, value in given.items() if key not in ("PYTHONPATH", "PYTHONHOME", "HF_TOKEN")
    }
    if "HF_TOKEN" in given:
        found["HUGGING_FACE_HUB_TOKEN"] = given["HF_TOKEN"]
    return found


def asked(log: str) -> tuple[int, int] | None:
    """Questions asked, and all of them, by the newest bar in a log."""
    found = _ASKED.findall(log)
    return (int(found[-1][0]), int(found[-1][1])) if found else None


def reason(log: str) -> str:
    """Why a run failed, by its log: what it says itself, else its last line."""
    plain = _COLOUR.sub("", log)
    if found := _ERROR.findall(plain):
        return str(found[-1]).strip()[:300]
    lines = [line.strip() for line in re.split(r"[\r\n]", plain) if line.strip()]
    return lines[-1][:300] if lines else "its log is empty"
