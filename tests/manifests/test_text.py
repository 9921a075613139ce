"""Foreign text: what a terminal and an error may show of it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.text import holds_secret, is_key_variable, one_line, printable, public_message, without_secrets

STEERING = "\x00\x07\x08\x1b\r\x7f\x9b\x85\u2028\u202e\u2066\u200f\u061c"


@settings(derandomize=True, deadline=None, max_examples=100)
@given(st.text(st.characters(codec="utf-8") | st.sampled_from(STEERING + "\n\t")))
def test_nothing_steers_a_terminal_and_the_rest_stays(text: str) -> None:
    shown = printable(text)
    assert not set(shown) & set(STEERING) and printable(shown) == shown
    assert "\n" not in one_line(text) and one_line(text).replace("\\n", "\n").count("\n") >= text.count("\n")
    if text.isprintable():
        assert shown == text


def test_steering_characters_are_spelled_out() -> None:
    assert printable("\x1b]0;x\x07\x9b\u202e\r a\tb\n") == "\\x1b]0;x\\x07\\x9b\\u202e\\x0d a\tb\n"
    assert one_line("a\nb") == "a\\nb"


def test_an_address_that_cannot_be_taken_apart_loses_what_may_be_secret() -> None:
    text = "cannot open 'http://user:d0n0ttell@[x/a.mp4?sig=d0n0ttell' or http://[y]/b"
    for cleaned in (without_secrets(text), public_message(text)):
        assert "d0n0ttell" not in cleaned and "http://[x/a.mp4" in cleaned and "http://[y]/b" in cleaned


@pytest.mark.parametrize(
    ("address", "secret"),
    [
        ("https://host/a.mp4?id=1", False),
        ("https://host/a@b.mp4", False),
        ("/local/a@b.mp4?sig=x", False),
        ("https://user@host/a.mp4", True),
        ("https://host/a.mp4?X-Amz-Signature=x", True),
        ("zip://a.mp4::https://host/b.zip?sig=x", True),
    ],
)
def test_whether_an_address_holds_a_secret(address: str, secret: bool) -> None:
    assert holds_secret(address) == secret


def test_variables_named_like_keys() -> None:
    assert [n for n in ("HF_TOKEN", "OPENAI_API_KEY", "KEYS", "OMP_NUM_THREADS") if is_key_variable(n)] == [
        "HF_TOKEN",
        "OPENAI_API_KEY",
    ]
