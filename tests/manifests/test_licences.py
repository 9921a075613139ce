"""What a licence's name says: of the well-known ones the same however they are written, of others nothing."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from manifests.licences import ALL, NAMED, RESEARCH, UNKNOWN, Terms, terms_of, with_terms
from manifests.schema import ARROW_TYPES, SOURCE_COLUMNS
from manifests.screen import load_screen
from pipelines.engine.source import InputError, Listing, list_input
from pipelines.synthetic_interactions import clip_fields
from tests.support.helpers import execute, make_files, manifest, toy_stages

NO_COMMERCE = Terms(commercial_use=False, derivatives=True)
NO_DERIVATIVES = Terms(commercial_use=True, derivatives=False)
NEITHER = Terms(commercial_use=False, derivatives=False)


@pytest.mark.parametrize(
    ("licence", "terms"),
    [
        *((text, ALL) for text in ("CC0-1.0", "CC0", "cc zero", "Creative Commons Zero v1.0 Universal")),
        *((text, ALL) for text in ("CC-BY-4.0", "CC BY 4.0", "cc_by", "CC-BY-3.0-US", "CC BY-SA 2.5")),
        ("Creative Commons Attribution 4.0 International", ALL),
        ("Creative Commons Attribution-ShareAlike 4.0 International Public License", ALL),
        ("https://creativecommons.org/licenses/by/4.0/", ALL),
        ("http://creativecommons.org/licenses/by-sa/3.0/de/deed.de", ALL),
        ("https://creativecommons.org/publicdomain/zero/1.0/legalcode.en", ALL),
        ("https://creativecommons.org/publicdomain/mark/1.0/", ALL),
        *((text, ALL) for text in ("public domain", "Public Domain (NASA)", "Public Domain Mark 1.0")),
        *((text, ALL) for text in ("MIT", "MIT License", "Apache-2.0", "Apache License, Version 2.0")),
        *((text, ALL) for text in ("ODC-By-1.0", "Open Data Commons Attribution License v1.0")),
        *((text, NO_COMMERCE) for text in ("CC-BY-NC-4.0", "CC BY-NC-SA 4.0", "cc by nc")),
        ("Attribution-NonCommercial 4.0 International", UNKNOWN),  # of whom?
        ("Creative Commons Attribution-NonCommercial-ShareAlike 4.0 International", NO_COMMERCE),
        ("https://creativecommons.org/licenses/by-nc/2.0/fr/", NO_COMMERCE),
        *((text, NO_DERIVATIVES) for text in ("CC-BY-ND-4.0", "Creative Commons Attribution No Derivatives")),
        *((text, NEITHER) for text in ("CC-BY-NC-ND-4.0", "CC BY-ND-NC 1.0", "CC-BY-NC-ND-3.0-IGO")),
        *(
            (text, RESEARCH)
            for text in ("research only", "Research only: no redistribution", "RESEARCH-ONLY")
        ),
        *((text, UNKNOWN) for text in (None, "", "?", "proprietary", "see website", "OpenHumanVid licence")),
        *((text, UNKNOWN) for text in ("CC", "CC-BY-4.0 AND MIT", "CC BY-NC 4.0 or a commercial licence")),
        *((text, UNKNOWN) for text in ("not MIT", "MIT-0", "GPL-3.0", "CC BY-ND-SA 4.0", "CC BY-NC-NC")),
        *((text, UNKNOWN) for text in ("public domain in some countries", "no public domain", "by 4.0")),
        *((text, UNKNOWN) for text in ("CC BY 4.0 MIT", "CC BY 4.0 or", "CC BY us", "Apache", "Apache-1.1")),
        ("for research only", UNKNOWN),
    ],
)
def test_what_a_name_says(licence: str | None, terms: Terms) -> None:
    assert terms_of(licence) == terms


def test_every_named_licence_has_a_source_and_is_found_by_its_own_words() -> None:
    for names, terms, source in NAMED:
        assert all(terms_of(words.upper()) == terms for words in names) and source.startswith("https://")


def test_a_list_goes_before_the_name() -> None:
    fields = {name: ARROW_TYPES[column.type] for name, column in SOURCE_COLUMNS.items()}
    rows = [
        {"licence": "CC-BY-4.0"},
        {"licence": "CC-BY-4.0", "commercial_use": False},
        {"licence": "no such", "derivatives": True},
        {"licence": None},
    ]
    table = with_terms(pa.Table.from_pylist(rows, schema=pa.schema(fields)))
    assert table["commercial_use"].to_pylist() == [True, False, None, None]
    assert table["derivatives"].to_pylist() == [True, True, True, None]
    listing = Listing.of([{"sample_id": "a", "licence": "CC-BY-ND-4.0"}], clip_fields())
    (row,) = listing.rows
    assert (row["commercial_use"], row["derivatives"], row["shows_minors"]) == (True, False, None)


def listed(folder: Path, rows: dict[str, list[object]], ending: str) -> Path:
    files = make_files(folder / "in", 4)
    frame = pd.DataFrame({"uri": [str(file) for file in sorted(files.iterdir())], **rows})
    path = folder / f"list{ending}"
    if ending == ".csv":
        frame.to_csv(path, index=False)
    elif ending == ".jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_parquet(path)
    return path


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize(
    "said", [["yes", "no", "n/a", ""], [True, False, None, None], [1.0, 0.0, None, None]], ids=str
)
def test_a_list_says_it_in_many_ways(said: list[object], ending: str, tmp_path: Path) -> None:
    path = listed(tmp_path, {"shows_minors": said}, ending)
    table = list_input(str(path)).table
    assert table["shows_minors"].to_pylist() == [True, False, None, None]
    assert "input_shows_minors" not in table.column_names


def test_a_list_that_says_neither_is_refused(tmp_path: Path) -> None:
    path = listed(tmp_path, {"derivatives": ["yes", "no", "maybe", "no"]}, ".csv")
    with pytest.raises(InputError, match="column derivatives: 'maybe' is neither true nor false"):
        list_input(str(path))


def test_rules_of_a_screen(tmp_path: Path) -> None:
    """Those of `commercial` alone: what is not known of a licence drops, what is not of minors passes."""
    whole = load_screen("commercial")
    own = [rule for rule in whole.rules if rule.column in ("commercial_use", "derivatives", "shows_minors")]
    assert len(own) == 3 and len(whole.rules) == len(load_screen("talking_head").rules) + 3
    licences = ["CC-BY-4.0", "CC-BY-4.0", "CC-BY-NC-ND-4.0", None]
    path = listed(tmp_path, {"licence": licences, "shows_minors": [None, "true", "false", None]}, ".csv")
    screen = whole.model_copy(update={"rules": own})
    execute(toy_stages(), path, tmp_path / "out", screen=screen)
    rows = manifest(tmp_path / "out")
    assert [list(reasons) for reasons in rows.drop_reasons] == [
        [],
        ["shows_minors"],
        ["no_commercial_use", "no_derivatives"],
        ["missing:commercial_use", "missing:derivatives"],
    ]


def test_terms_that_change_compute_nothing(tmp_path: Path) -> None:
    path = listed(tmp_path, {"licence": ["CC-BY-4.0"] * 4}, ".parquet")
    execute(toy_stages(), path, tmp_path / "out")
    pd.read_parquet(path).assign(licence="research only").to_parquet(path)
    record = execute(toy_stages(), path, tmp_path / "out")
    assert record["counts"]["computed"] == 0 and manifest(tmp_path / "out").commercial_use.eq(False).all()
