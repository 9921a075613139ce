"""People and sides of a large collection: synthetic faces are grouped, and their rows split.

Faces are directions of 512 numbers, as ArcFace's. Those of one person have a mean cosine of 0.6, those of two
people about 0; how many clips a person has is drawn from a wide distribution.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from pipelines.collection.linkage import BLOCK, Floats, Groups, Ints, nearest_others, unit
from pipelines.collection.runs import RUN
from pipelines.collection.splits import LINKS, Rows, numbered, split_rows

WIDTH, COSINE, THRESHOLD = 512, 0.6, 0.45


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faces", type=int, default=100_000, help="clips with a face")
    parser.add_argument("--clips", type=float, default=10, help="of a person, on average")
    arguments = parser.parse_args()
    table = Table("what", "seconds", "peak memory, GB", "result")

    def note(what: str, since: float, result: str) -> None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        table.add_row(what, f"{time.perf_counter() - since:.1f}", f"{peak:.1f}", result)

    begin = time.perf_counter()
    vectors, true = faces(arguments.faces, arguments.clips)
    note(
        f"{arguments.faces} faces are made",
        begin,
        f"{true.max() + 1} people, most clips {np.bincount(true).max()}",
    )

    begin = time.perf_counter()
    groups = Groups(vectors, np.arange(len(vectors)), {})
    groups.join(THRESHOLD)
    precision, recall = pair_figures(groups.of, true)
    found = f"{len(groups.sizes)} people, pairwise precision {precision:.4f}, recall {recall:.4f}"
    note("people are found", begin, found)

    begin = time.perf_counter()
    nearest_others(unit(groups.means), 1)
    note("the nearest other person of each", begin, "")

    rows = rows_of(groups.of)
    begin = time.perf_counter()
    split = split_rows(rows, balance=["source"])
    sides = split.found["split"].value_counts().to_pylist()
    shares = ", ".join(f"{side['values']} {side['counts'] / len(vectors):.4f}" for side in sides)
    note("their rows are split", begin, f"{len(np.unique(split.groups))} groups; {shares}")
    Console().print(table)


def faces(count: int, clips: float) -> tuple[Floats, Ints]:
    """Unit vectors, float32 [count, 512], and whose they are."""
    rng = np.random.default_rng(0)
    sizes = np.ceil(rng.lognormal(np.log(clips) - 0.5, 1, int(2 * count / clips) + 10)).astype(np.int64)
    true = np.repeat(np.arange(len(sizes)), sizes)[:count]
    people = unit(rng.standard_normal((int(true.max()) + 1, WIDTH), np.float32))
    vectors = np.empty((count, WIDTH), np.float32)
    noise = np.sqrt((1 / COSINE - 1) / WIDTH)
    for start in range(0, count, BLOCK):
        mine = true[start : start + BLOCK]
        around = rng.standard_normal((len(mine), WIDTH), np.float32) * np.float32(noise)
        vectors[start : start + BLOCK] = unit(people[mine] + around)
    order = rng.permutation(count)
    return vectors[order], true[order]


def pair_figures(found: Ints, true: Ints) -> tuple[float, float]:
    """Pairwise precision and recall."""

    def pairs(labels: Ints) -> int:
        sizes = np.unique(labels, return_counts=True)[1].astype(np.int64)
        return int((sizes * (sizes - 1) // 2).sum())

    both = pairs(found * (int(true.max()) + 1) + true)
    return both / pairs(found), both / pairs(true)


def rows_of(people: Ints) -> Rows:
    """A row for each face: its person, a video that two neighbours share at times, one of three data sets."""
    count = len(people)
    rng = np.random.default_rng(0)
    videos = np.where(rng.random(count) < 0.02, np.arange(count) // 2 * 2, np.arange(count))
    columns = {name: pa.nulls(count, pa.string()) for links in LINKS.values() for name in links}
    columns |= {
        "sample_id": pa.array([f"clip-{number:08d}" for number in range(count)]),
        "source_uri": pa.array([f"/videos/{number:08d}.mp4" for number in videos.tolist()]),
        "person_id": pa.array([f"person-{number:08d}" for number in people.tolist()]),
        "source": pa.array(rng.choice(["a", "b", "c"], count, p=[0.7, 0.2, 0.1])),
        "split": pa.nulls(count, pa.string()),
        "keep": pa.array(rng.random(count) < 0.5),
        RUN: pa.array(np.zeros(count, np.int32)),
    }
    table = pa.table(columns)
    links = {link: numbered([table[name] for name in names]) for link, names in LINKS.items()}
    return Rows(table, links)


if __name__ == "__main__":
    main()
