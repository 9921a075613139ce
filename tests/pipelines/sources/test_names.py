"""`--input NAME:PATH`: what is a data set's name, and what is a path or an address."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.engine.input_error import InputError
from pipelines.sources.names import split_name
from pipelines.sources.table import READERS

PATHS = [
    *("clips", "/data/clips", "./a:b", "../hdtf:x", "/data/hdtf:x", "videos/**/*:*.mp4", "*:x", "a.b:c"),
    *("s3://bucket/x", "memory://x", "file:///x", "simplecache::s3://b/x", "tar://a::file://b", "hdtf://x"),
    *("C:\\clips", "C:/clips", "c:clips", ":x", "", "hdtf", "1a:x"),
]


@pytest.mark.parametrize("text", PATHS)
def test_paths_and_addresses(text: str) -> None:
    assert split_name(text, READERS) is None


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("path", ["/data/x", "x", "../x", "C:\\x", "a:b", "s3://b/x", " "])
def test_names_that_are_known(name: str, path: str) -> None:
    assert split_name(f"{name}:{path}", READERS) == (name, path)
    assert split_name(f"{name.upper()}:{path}", READERS) == (name, path)


@settings(derandomize=True, deadline=None)
@given(st.text("abc/.:*\\ -_1C", max_size=12), st.sampled_from(sorted(READERS)))
def test_whatever_stands_behind_a_name_is_the_path(path: str, name: str) -> None:
    if path.startswith(("//", ":")):
        assert split_name(f"{name}:{path}", READERS) is None
    elif not path:
        with pytest.raises(InputError, match="names no folder"):
            split_name(f"{name}:", READERS)
    else:
        assert split_name(f"{name}:{path}", READERS) == (name, path)


@settings(derandomize=True, deadline=None)
@given(st.text(max_size=20))
def test_any_text_is_a_path_a_data_set_or_refused(text: str) -> None:
    try:
        found = split_name(text, READERS)
    except InputError:
        return
    assert found is None or (found[0] in READERS and text.lower().startswith(f"{found[0]}:"))


def test_a_file_of_the_whole_name_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hdtf:x").mkdir()
    assert split_name("hdtf:x", READERS) is None
    assert split_name("hdtf:y", READERS) == ("hdtf", "y")


def test_a_name_that_is_unknown_is_told_with_those_like_it() -> None:
    with pytest.raises(InputError) as error:
        split_name("hdft:/data/HDTF", READERS)
    said = str(error.value)
    assert "no data set is called hdft; did you mean hdtf:/data/HDTF?" in said and "ravdess" in said
    with pytest.raises(InputError, match=r"is called quux \(known: openhumanvid, "):
        split_name("quux:/data", READERS)
