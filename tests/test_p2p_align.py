"""Alignment of words and tokens."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from generators.concepts import CONCEPTS
from generators.p2p.align import align
from generators.p2p.words import AlignmentError, Words, blocks, shared_words, split_words
from generators.paperdolls.diffusion import build_tokenizer

SHARES = {"default": 1.0, "edited": 0.4}


@cache
def _tokenizer():
    return build_tokenizer("!")


def words(prompt: str) -> Words:
    return split_words(prompt, lambda text: _tokenizer()(text, add_special_tokens=False).input_ids)


def test_words_know_their_tokens() -> None:
    found = words("A photo of a belligerent man, shouting")
    ids = _tokenizer()(found.prompt).input_ids
    for word, (start, end) in zip(found.words, found.spans, strict=True):
        assert _tokenizer().decode(ids[start:end]).strip() == word.lower()
    assert ids[found.end] == _tokenizer().eos_token_id


def test_a_prompt_over_77_tokens_is_refused_with_its_length() -> None:
    with pytest.raises(AlignmentError, match=r"has 80 tokens, the text encoder takes 75.*shorten"):
        words("man " * 80)


def test_replace_maps_one_word_on_one_and_follows_it_for_its_share() -> None:
    found = align(words("a photo of a White man"), words("a photo of a Black man"), "replace", SHARES)
    assert np.array_equal(found.mapper, np.eye(77, dtype=np.float32))
    assert found.edited == (5,)
    assert found.share[5] == pytest.approx(0.4)
    assert found.share[4] == found.share[6] == found.share[0] == found.share[76] == 1


def test_a_word_of_more_tokens_takes_its_share_of_each() -> None:
    base, edit = words("a kind man"), words("a belligerent man")
    (start, end), old = edit.spans[1], base.spans[1]
    assert end - start > 1 == old[1] - old[0]
    found = align(base, edit, "replace", SHARES)
    assert found.mapper[old[0], start:end] == pytest.approx(1 / (end - start))
    assert found.mapper[base.spans[2][0], edit.spans[2][0]] == 1


def test_end_of_text_maps_to_end_and_padding_shifts() -> None:
    base, edit = words("a White man"), words("a Middle Eastern man")
    found = align(base, edit, "refine", SHARES)
    assert found.mapper[base.end, edit.end] == 1
    assert found.mapper[base.end + 7, edit.end + 7] == 1
    assert found.mapper[75, 76] == 1  # one token longer than its base
    assert found.share[edit.end :] == pytest.approx(1.0)


def test_refine_lets_common_words_follow_and_new_words_not() -> None:
    base, edit = words("a White man in a middle school"), words("a Middle Eastern man in a middle school")
    found = align(base, edit, "auto", SHARES)
    new = [token for span in edit.spans[1:3] for token in range(*span)]
    assert list(found.edited) == new
    assert found.follows[new].tolist() == [0] * len(new)
    assert found.follows.sum() == 77 - len(new)
    assert not found.mapper[:, new].any()
    assert found.mapper[base.spans[-1][0], edit.spans[-1][0]] == 1


def test_auto_swaps_words_beside_words_that_are_new() -> None:
    base, edit = words("a White man"), words("a Black man with glasses")
    found = align(base, edit, "auto", SHARES)
    (old,), (swapped,), new = (
        [range(*base.spans[1])],
        [range(*edit.spans[1])],
        range(edit.spans[3][0], edit.spans[4][1]),
    )
    assert list(found.edited) == [*swapped, *new]
    assert found.mapper[list(old), list(swapped)].all() and not found.mapper[:, list(new)].any()
    assert align(base, edit, "refine", SHARES).follows[list(swapped)].sum() == 0


def test_padding_of_a_shorter_edit_shifts_back() -> None:
    base, edit = words("a Middle Eastern man"), words("a White man")
    found = align(base, edit, "refine", SHARES)
    assert found.mapper[base.end, edit.end] == 1 and found.mapper[base.end + 7, edit.end + 7] == 1
    assert found.mapper[76, 75] == found.mapper[76, 76] == 1, "the last of it to the last"


def test_a_and_an_change_along_with_the_word() -> None:
    found = align(words("a photo of a young man"), words("a photo of an old man"), "replace", SHARES)
    assert found.edited == (5,)
    assert found.share[4] == 1


@pytest.mark.parametrize(
    ("base", "edit", "said"),
    [
        ("a young White man", "an old Black man", "'young White' to 'old Black'"),
        ("a young man in red", "a young woman in blue", "'man' to 'woman' and 'red' to 'blue'"),
        ("a White man", "a Middle Eastern man", "'White' to 'Middle Eastern'"),
        ("a White man", "a White man", "nothing"),
    ],
)
def test_replace_refuses_more_or_fewer_than_one_word(base: str, edit: str, said: str) -> None:
    with pytest.raises(AlignmentError, match="replace needs exactly one word") as caught:
        align(words(base), words(edit), "replace", SHARES)
    assert said in str(caught.value)
    assert repr(base) in str(caught.value)


def test_words_may_have_a_share_of_their_own() -> None:
    found = align(
        words("a White chef smiling"), words("a Black chef smiling"), "auto", {**SHARES, "Chef": 0.25}
    )
    assert found.share[3] == pytest.approx(0.25)


@given(
    st.sampled_from(["White", "Black", "Indian", "Asian", "Middle Eastern", "Latino"]),
    st.sampled_from(["White", "Black", "Indian", "Asian", "Middle Eastern", "Latino"]),
    st.sampled_from([phrase for concept in CONCEPTS.values() for phrase in concept.phrases]),
)
def test_every_followed_token_takes_over_exactly_one_share(old: str, new: str, phrase: str) -> None:
    base, edit = (
        words(f"A photo of a young {old} man {phrase}"),
        words(f"A photo of a young {new} man {phrase}"),
    )
    found = align(base, edit, "auto", SHARES)
    rows = found.mapper.sum(1)[: base.end]
    assert rows == pytest.approx(np.round(rows)) and set(np.round(rows)) <= {0, 1}, (
        "taken over once, or by none"
    )
    if old == new:
        assert found.edited == found.replaced == ()
        return
    assert (rows[list(found.replaced)] == 0).all() == (old.count(" ") != new.count(" "))
    assert found.follows[list(found.edited)].all() == (old.count(" ") == new.count(" "))
    assert found.share[edit.end] == 1


def longest(first: list[str], second: list[str]) -> int:
    """Length of the longest common subsequence, by its definition."""
    if not first or not second:
        return 0
    if first[-1] == second[-1]:
        return 1 + longest(first[:-1], second[:-1])
    return max(longest(first[:-1], second), longest(first, second[:-1]))


SOME = st.lists(st.sampled_from(["a", "man", "red", "hat"]), max_size=6)


@given(SOME, SOME)
def test_words_are_aligned_globally(first: list[str], second: list[str]) -> None:
    pairs = shared_words(first, second)
    assert len(pairs) == longest(first, second), "as many pairs as there can be"
    assert all(first[i] == second[j] for i, j in pairs)
    assert pairs == sorted(pairs) and len({i for i, _ in pairs}) == len({j for _, j in pairs}) == len(pairs)


def test_shared_words_stand_in_as_few_runs_as_can_be() -> None:
    found = shared_words(["a", "man"], ["a", "tall", "and", "a", "kind", "a", "man"])
    assert found == [(0, 5), (1, 6)]


def test_a_long_common_run_out_of_place_does_not_hide_the_words_in_place() -> None:
    """A matcher that takes the longest run first pairs "in red" and loses the five words around."""
    base, edit = words("in red a man and a woman sit"), words("a man by a woman sit in red")
    old = [i for i, _ in shared_words(base.comparable, edit.comparable)]
    assert [base.words[i] for i in old] == ["a", "man", "a", "woman", "sit"]


def test_blocks_cover_both_prompts_in_order() -> None:
    base, edit = words("A photo of a young man, smiling"), words("A photo of an old tall man, smiling")
    assert blocks(base, edit) == [
        ("equal", 0, 4, 0, 4),
        ("changed", 4, 5, 4, 6),
        ("equal", 5, 8, 6, 9),
    ]
    assert blocks(base, base) == [("equal", 0, 8, 0, 8)]
