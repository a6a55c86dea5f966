"""What an export is asked for, checked before anything is read."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from storage import CounterpoiseError

LAYOUTS = ("hf", "chat", "energon")
OPTIONS_PLACE = "{options}"


@dataclass(frozen=True, slots=True)
class Chat:
    """How `--to chat` asks and resamples.

    Attributes:
        seed: of every draw: order of the options, kind of item, words of the question, copies.
        epoch: of the copies; None where it was not given.
        questions: templates of the multiple choice; `{options}` is where the options go, else they follow.
        caption_share: share of items that ask for a sentence instead.
        resample: name of a skew sidecar inside the dataset; None for every image once.
        tau1, tau2: of `debias.sampling.copies`; None where they were not given.
    """

    seed: int = 0
    epoch: int | None = None
    questions: tuple[str, ...] = ()
    caption_share: float = 0.25
    resample: str | None = None
    tau1: float | None = None
    tau2: float | None = None

    @property
    def draws(self) -> bool:
        """Copies are drawn anew, whatever multiplicities the sidecar has."""
        return (self.epoch, self.tau1, self.tau2) != (None, None, None)

    @property
    def drawn(self) -> dict[str, Any]:
        """epoch, tau1 and tau2 of the draw."""
        given = {"epoch": (self.epoch, 0), "tau1": (self.tau1, 1.0), "tau2": (self.tau2, 1.0)}
        return {name: default if value is None else value for name, (value, default) in given.items()}


def request_facts(to: str, chat: Chat) -> dict[str, Any]:
    """What decides an export's bytes beside the dataset, as plain facts.

    Raises:
        CounterpoiseError: a flag's value cannot be used; names the flag.
    """
    if to not in LAYOUTS:
        raise CounterpoiseError(f"--to: given {to!r}, wanted one of {', '.join(LAYOUTS)}")
    if to != "chat":
        _refuse_chat_flags(to, chat)
        return {"to": to}
    _check(chat)
    facts = {name: value for name, value in asdict(chat).items() if name not in chat.drawn}
    return {"to": to, **facts, "questions": list(chat.questions)}


def _refuse_chat_flags(to: str, chat: Chat) -> None:
    plain, given = asdict(Chat()), asdict(chat)
    flags = {"questions": "--question", "caption_share": "--caption-share"}
    for name, value in given.items():
        if value != plain[name]:
            flag = flags.get(name, f"--{name}")
            raise CounterpoiseError(f"{flag}: it is for --to chat, and --to is {to}; leave it out")


def _check(chat: Chat) -> None:
    if not 0 <= chat.caption_share <= 1:
        raise CounterpoiseError(f"--caption-share: given {chat.caption_share}, wanted a number from 0 to 1")
    for name in ("tau1", "tau2"):
        value = getattr(chat, name)
        if value is None:
            continue
        if not (math.isfinite(value) and value > 0):
            raise CounterpoiseError(f"--{name}: given {value}, wanted a number above 0")
        if chat.resample is None:
            raise CounterpoiseError(f"--{name}: it is for --resample, which is not given")
    if chat.resample is None and chat.epoch is not None:
        raise CounterpoiseError("--epoch: it is for --resample, which is not given")
    for question in chat.questions:
        if not question.replace(OPTIONS_PLACE, "").strip() or question.count(OPTIONS_PLACE) > 1:
            raise CounterpoiseError(
                f"--question: given {question!r}, wanted a question with {OPTIONS_PLACE} at most once"
            )
        if "<image>" in question:
            raise CounterpoiseError(
                f"--question: given {question!r}, wanted one without <image>, which is added"
            )
