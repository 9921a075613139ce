"""Texts cut to CLIP's length."""

from __future__ import annotations

import pytest

from metrics.short_text import MOST_TOKENS, first_sentences, tokens_at_most


def test_a_short_text_stays() -> None:
    assert first_sentences(" A cup.\n Another  one? ") == "A cup. Another one?"
    assert first_sentences("no end") == "no end"
    assert first_sentences("") == first_sentences(" \n") == ""


def test_sentences_stay_whole_while_they_fit() -> None:
    three = "One two three. Four five six. Seven eight."
    assert first_sentences(three, most=11) == three
    assert first_sentences(three, most=10) == "One two three. Four five six."
    assert first_sentences(three, most=7) == "One two three."


def test_a_first_sentence_that_is_too_long_is_cut_between_words() -> None:
    assert first_sentences("one two three four five", most=3) == "one two three"
    long = first_sentences("word " * 200)
    assert long == " ".join(["word"] * MOST_TOKENS)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("a cup", 2), ("A cup.", 3), ("in 2026", 5), ("unbelievable", 2), ("杯", 3), ("don't", 3), ("", 0)],
)
def test_tokens_are_counted_on_the_safe_side(text: str, tokens: int) -> None:
    assert tokens_at_most(text) == tokens
