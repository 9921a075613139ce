"""A part of a plan is these rows and no others, wherever row groups end; nobody else may read the file."""

from __future__ import annotations

import random
import stat
from pathlib import Path

import pyarrow as pa
import pytest

from manifests.schema import STAGES, to_table
from pipelines.engine.plan_file import PlanFile, writing

SCHEMA = pa.schema({"sample_id": pa.string(), "stages": STAGES})


def write(path: Path, sizes: list[int], row_group: int) -> list[str]:
    """Tables of these sizes one after the other; the ids."""
    ids = [f"s{number}" for number in range(sum(sizes))]
    with writing(path, SCHEMA) as writer:
        for at, size in enumerate(sizes):
            first = sum(sizes[:at])
            rows = [{"sample_id": name, "stages": {"a": name}} for name in ids[first : first + size]]
            writer.write_table(to_table(rows, SCHEMA), row_group_size=row_group)
    return ids


@pytest.mark.parametrize("seed", range(6))
def test_parts_of_any_size_in_any_order_are_the_rows(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    sizes = [rng.randrange(1, 12) for _ in range(rng.randrange(1, 5))]
    ids = write(tmp_path / "plan.parquet", sizes, rng.randrange(1, 6))
    plan, count = PlanFile(tmp_path / "plan.parquet"), rng.randrange(1, 9)
    starts = list(range(0, len(ids), count))
    rng.shuffle(starts)
    found = {first: plan.rows(first, count) for first in starts}
    rows = [row for first in sorted(found) for row in found[first]]
    assert [row["sample_id"] for row in rows] == ids
    assert all(row["stages"] == {"a": row["sample_id"]} for row in rows)
    assert plan.rows(len(ids), count) == []


def test_only_the_owner_reads_a_plan(tmp_path: Path) -> None:
    write(tmp_path / "plan.parquet", [2], 2)
    assert stat.S_IMODE((tmp_path / "plan.parquet").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["plan.parquet"]


def test_a_plan_that_is_cut_short_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), writing(tmp_path / "plan.parquet", SCHEMA):
        raise RuntimeError("killed")
    assert list(tmp_path.iterdir()) == []
