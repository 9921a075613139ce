"""A run's folder as it was before arrays lay in packs: a `.npz` for each sample and stage."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow.parquet as pq

from manifests.schema import stage_dict


def make_files_of_arrays(run: Path) -> list[Path]:
    """Give each sample's and stage's arrays a file of their own, and the manifest no column for them."""
    made = []
    for file in sorted((run / "manifest").glob("*.parquet")):
        table = pq.read_table(file)
        for row in table.select(["sample_id", "stages", "arrays"]).to_pylist():
            for place in row["arrays"] or ():
                stage, name = place["stage"], row["sample_id"]
                path = run / "features" / stage / name[-2:] / f"{name}-{stage_dict(row['stages'])[stage]}.npz"
                path.parent.mkdir(parents=True, exist_ok=True)
                pack = (run / place["file"]).read_bytes()
                path.write_bytes(pack[place["offset"] : place["offset"] + place["size"]])
                made.append(path)
        pq.write_table(table.drop_columns(["arrays"]), file)
    for folder in {pack.parent for pack in (run / "features").rglob("*.pack")}:
        shutil.rmtree(folder)
    return made
