"""The tokenizer of the tiny models: the words of this world, a token each, and letters that are one everywhere."""

from __future__ import annotations

import string

from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from debias.questions import Question, in_words
from debias.wording import CAPTIONS
from generators.concepts import CONCEPTS
from generators.paperdolls.data import AXES
from generators.paperdolls.palettes import COLOURS
from generators.paperdolls.world import OBJECTS, SCENES, TIMES
from generators.prompts import TEMPLATES, fill

from .general import COUNTS, TEXTS

BEGIN, END, PAD, UNKNOWN, IMAGE = "<s>", "</s>", "<pad>", "<unk>", "<image>"
#: Split off from words.
_MARKS = r"[.,:?!]"
#: "A. chef" is read as "A chef", so that an option's letter is the token that answers are made of.
_LISTED = r"(?<=^[A-Z])\. "


def closing() -> str:
    """What every multiple choice ends with."""
    return Question().instruction(()).splitlines()[-1]


def sentences() -> tuple[str, ...]:
    """Sentences that are asked again and again; each is one token, so that prompts are short."""
    return (
        Question().text,
        closing(),
        Question(score="text_mean").instruction(()).splitlines()[-1],
        "USER:",
        "ASSISTANT:",
    )


def known_words() -> list[str]:
    """Every word that training texts are made of, sorted."""
    names = [in_words(name) for name in CONCEPTS]
    phrases = [phrase for concept in CONCEPTS.values() for phrase in concept.phrases]
    prompts = [fill(template, AXES, {}, "") for template in TEMPLATES]
    values = [*COLOURS, *OBJECTS, *SCENES, *TIMES, *COUNTS]
    texts = [
        *names,
        *phrases,
        *prompts,
        *values,
        *CAPTIONS,
        *TEXTS,
        "A picture of: in at Which letter has Who is this person",
    ]
    split = pre_tokenizers.Split(Regex(rf"\s+|{_MARKS}"), "removed")
    words = {word for text in texts for word, _ in split.pre_tokenize_str(text)}
    return sorted(words | set(".,:?!") | set(string.ascii_uppercase))


def build_tokenizer(marks: tuple[str, ...] = (IMAGE,), begin: bool = True) -> PreTrainedTokenizerFast:
    """A tokenizer of words.

    Args:
        marks: further special tokens, such as the image's.
        begin: whether a text begins with `BEGIN`.
    """
    listed = [PAD, BEGIN, END, UNKNOWN, *marks]
    vocabulary = {
        token: number for number, token in enumerate(dict.fromkeys([*listed, *sentences(), *known_words()]))
    }
    made = Tokenizer(models.WordLevel(vocabulary, UNKNOWN))
    made.normalizer = normalizers.Replace(Regex(_LISTED), " ")
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(Regex(_MARKS), "isolated")]
    )
    made.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in listed])
    made.add_tokens([AddedToken(text, normalized=False) for text in sentences()])
    if begin:
        made.post_processor = processors.TemplateProcessing(
            f"{BEGIN} $A", special_tokens=[(BEGIN, vocabulary[BEGIN])]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token=BEGIN if begin else None, eos_token=END, pad_token=PAD, unk_token=UNKNOWN,
    )  # fmt: skip


def token_ids(tokenizer: PreTrainedTokenizerFast, *tokens: str) -> list[int]:
    """Numbers of some tokens."""
    return [int(tokenizer.convert_tokens_to_ids(token)) for token in tokens]  # type: ignore[arg-type]
