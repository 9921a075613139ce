"""Pictures made of labelled ones: mirrored, cut, and with something put before the body.

Of each picture `region` is claimed as in `labels/regions.csv`: x, y of a visible one, `hidden` of one that is
not. Cuts go below the chin, at the shoulders, mid-chest, at the waist and at the hips, and into columns as
wide as the head. Before the body come a lectern, a laptop and another person.

`python -m tests.truth.make_regions SAMPLES FOLDER`
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from media.decode import decode
from media.requests import Frames
from prompts.vocabulary import REGIONS, Region, mirrored
from tests.support.region_marks import MARKED

SEED = 7
LABELS = Path(__file__).parent / "labels" / "regions.csv"
HEADER = ("media", "claim", "value", "start_s", "end_s", "x", "y", "source", "note")
SIDE = 720

# Where a region's mark is, normalised; None: hidden. A region that is not in it was not decided.
Truth = dict[str, tuple[float, float] | None]
Image = npt.NDArray[np.uint8]

# Eyes to mouth is about 0.36 of a face's height, chin to hairline.
FACES: Final = 2.8
# Seen to the waist or further, with nothing before the body.
WHOLE = (
    "images/mtcnn_man_with_mic.jpg",
    "kinds/facenet-pytorch_kate_siegel_1.jpg",
    "kinds/deepface_img37.jpg",
    "videos/intel_asl_book.mkv",
    "videos/intel_asl_brother.mkv",
    "videos/intel_asl_learn.mkv",
    "videos/latentsync_man_en.mp4",
    "videos/latentsync_man_pt.mp4",
    "videos/latentsync_woman_ru.mp4",
    "videos/liveportrait_woman_lake.mp4",
    "videos/sam2_man_juggle.mp4",
)
# Seen to the chest at least.
BUSTS = (
    "images/facerec_biden_official.jpg",
    "images/facerec_obama_official.jpg",
    "images/uniface_man2.jpg",
    "images/uniface_woman1.jpg",
    "kinds/deepface_img15.jpg",
    "kinds/deepface_img20.jpg",
    "kinds/deepface_img26.jpg",
    "kinds/deepface_img29.jpg",
    "kinds/deepface_img39.jpg",
    "kinds/deepface_img42.jpg",
    "kinds/facenet-pytorch_angelina_jolie_1.jpg",
    "kinds/facenet-pytorch_shea_whigham_1.jpg",
)
PUT_BEFORE = (
    "images/uniface_man2.jpg",
    "images/uniface_woman1.jpg",
    "kinds/deepface_img15.jpg",
    "kinds/deepface_img26.jpg",
    "kinds/deepface_img27.jpg",
    "kinds/deepface_img29.jpg",
    "kinds/deepface_img37.jpg",
    "kinds/facenet-pytorch_kate_siegel_1.jpg",
    "kinds/facenet-pytorch_shea_whigham_1.jpg",
    "videos/intel_asl_book.mkv",
    "videos/intel_asl_brother.mkv",
    "videos/latentsync_man_en.mp4",
    "videos/latentsync_man_pt.mp4",
    "videos/latentsync_woman_ru.mp4",
)
_FACE_PARTS = ("nose", "mouth", "left_eye", "right_eye", "left_face", "right_face")


def truths() -> dict[str, Truth]:
    """All pictures labelled by eye, those of `tests.support.region_marks` too, without the latter's hair."""
    out: dict[str, Truth] = {
        name: {r: m.points.get(r) for r in REGIONS if r != "hair"} for name, m in MARKED.items()
    }
    with LABELS.open() as file:
        for row in csv.DictReader(file):
            at = None if row["note"] == "hidden" else (float(row["x"]), float(row["y"]))
            out.setdefault(row["media"], {})[row["value"]] = at
    return out


def source(media: str) -> str:
    """Where a picture comes from: the repository that its name begins with."""
    return Path(media).name.split("_")[0].split(".")[0]


def make(samples: Path, folder: Path) -> Path:
    """Write pictures and `labels.csv` into `folder`; returns the latter's path. The same at every call."""
    print(f"make_regions: seed {SEED}")
    known = truths()
    rows: list[tuple[str, ...]] = []

    def add(name: str, kind: str, image: Image, truth: Truth) -> None:
        file = f"{Path(name).stem}_{kind}.png"
        cv2.imwrite(str(folder / file), image[..., ::-1])
        for region, at in sorted(truth.items()):
            x, y = ("", "") if at is None else (f"{at[0]:.4f}", f"{at[1]:.4f}")
            rows.append((file, "region", region, "", "", x, y, source(name), "hidden" if at is None else ""))

    folder.mkdir(parents=True, exist_ok=True)
    images = {name: first_frame(samples / name) for name in dict.fromkeys((*WHOLE, *BUSTS, *PUT_BEFORE))}
    for name in (*WHOLE, *BUSTS):
        add(name, "mirrored", np.ascontiguousarray(images[name][:, ::-1]), flipped(known[name]))
        for kind, bottom in bottoms(images[name], known[name]).items():
            add(name, kind, *cut(images[name], known[name], (0, 0, 1, bottom)))
        add(name, "column", *column(images[name], known[name]))
    rng = np.random.default_rng(SEED)
    for name in PUT_BEFORE:
        for kind in ("lectern", "laptop", "person"):
            add(name, kind, *put_before(images[name], known[name], kind, rng))
    path = folder / "labels.csv"
    with path.open("w", newline="") as out:
        csv.writer(out, lineterminator="\n").writerows([HEADER, *rows])
    return path


def first_frame(path: Path) -> Image:
    """RGB, uint8 [H, W, 3]."""
    request = Frames(fps=0.001, short_side=SIDE)
    end = 0.2 if path.parent.name == "videos" else None
    return np.asarray(decode(path, [request], end_s=end).frames[request][1][0])


def face_height(truth: Mapping[str, tuple[float, float] | None], width: int, height: int) -> float:
    """Chin to hairline, pixels."""
    right, left, mouth = (np.array(truth[part]) for part in ("right_eye", "left_eye", "mouth"))
    return FACES * float(np.linalg.norm(((right + left) / 2 - mouth) * (width, height)))


def flipped(truth: Truth) -> Truth:
    """The truth of the mirrored picture."""
    return {
        mirrored(_region(region)): None if at is None else (1 - at[0], at[1]) for region, at in truth.items()
    }


def bottoms(image: Image, truth: Truth) -> dict[str, float]:
    """Lower edges of cuts, as shares of the height; those that lie in the picture."""
    height, width = image.shape[:2]
    face = face_height(truth, width, height) / height
    shoulders = _shoulders(truth)
    mouth, chest, abdomen = truth["mouth"], truth["chest"], truth.get("abdomen")
    assert mouth is not None
    out = {"chin": mouth[1] + 0.25 * face, "shoulders": shoulders - 0.05 * face}
    if chest is not None:
        out["chest"] = max(chest[1], shoulders + 0.35 * face)
    if abdomen is not None:
        out |= {"above_waist": abdomen[1] - 0.3 * face, "waist": abdomen[1] + 0.3 * face}
        out["hips"] = abdomen[1] + 0.7 * face
    return {kind: bottom for kind, bottom in out.items() if bottom < 0.98}


def cut(image: Image, truth: Truth, box: tuple[float, float, float, float]) -> tuple[Image, Truth]:
    """The part of the picture in x0, y0, x1, y1, normalised, and what is seen in it.

    The chest is in it from 0.2 face heights below the shoulders on, the abdomen from 0.2 below its mark;
    where they are cut off less than that they are not decided, nor is another region at the cut.
    """
    height, width = image.shape[:2]
    face = face_height(truth, width, height) / np.array([width, height])
    x0, y0, x1, y1 = box
    out: Truth = {}
    for region, at in truth.items():
        if at is None:
            out[region] = None
            continue
        x, y = at
        near = 0.12 if region in _FACE_PARTS else 0.2
        if region == "chest":
            room = (y1 - _shoulders(truth)) / face[1]
            y = min(y, (y1 + _shoulders(truth)) / 2)
            if 0 <= room < 0.2:
                continue
            seen = room > 0
        else:
            ends = [(y1 - y) / face[1]] if y1 < 1 else []
            ends += [(x - x0) / face[0]] if x0 > 0 else []
            ends += [(x1 - x) / face[0]] if x1 < 1 else []
            edge = min(ends)
            if abs(edge) < near:
                continue
            seen = edge > 0
        out[region] = ((x - x0) / (x1 - x0), (y - y0) / (y1 - y0)) if seen else None
    a, b = round(x0 * width), round(x1 * width)
    return np.ascontiguousarray(image[round(y0 * height) : round(y1 * height), a:b]), out


def column(image: Image, truth: Truth) -> tuple[Image, Truth]:
    """A column 1.6 face heights wide around the face; shoulders and ears are not decided."""
    height, width = image.shape[:2]
    mouth = truth["mouth"]
    assert mouth is not None
    half = 0.8 * face_height(truth, width, height) / width
    box = (max(0.0, mouth[0] - half), 0.0, min(1.0, mouth[0] + half), 1.0)
    out, seen = cut(image, truth, box)
    undecided = ("left_shoulder", "right_shoulder", "left_ear", "right_ear")
    return out, {region: at for region, at in seen.items() if region not in undecided}


def put_before(image: Image, truth: Truth, kind: str, rng: np.random.Generator) -> tuple[Image, Truth]:
    """Something before the body from above the chest's middle on.

    lectern: of wood, across the picture. laptop: a lid as wide as a body with its arms. person: a head and
    shoulders seen from behind, nearer to the camera. They cover the chest from 0.1 face heights above the
    shoulders on, or, by lot and where the body is seen so far, from 0.55 below them; then the chest stays
    visible above.
    """
    height, width = image.shape[:2]
    face = face_height(truth, width, height)
    shoulders, middle = _shoulders(truth) * height, _middle(truth) * width
    room = height - shoulders
    low = room > 1.2 * face and bool(rng.integers(2))
    top = shoulders + (0.55 if low else -0.1) * face
    half = {"lectern": width, "laptop": 1.15 * face, "person": 1.6 * face}[kind]
    out = image.copy()
    shape = np.zeros((height, width), np.uint8)
    x0, x1, y0 = round(middle - half), round(middle + half), round(top)
    if kind == "person":
        cv2.circle(shape, (round(middle), round(top + 0.75 * face)), round(0.75 * face), 1, -1)
        low_middle = (round(middle), round(top + 2 * face))
        cv2.ellipse(shape, low_middle, (round(half), round(face)), 0, 0, 360, 1, -1)
    else:
        cv2.rectangle(shape, (x0, y0), (x1, height), 1, -1)
    colour = {"lectern": (96, 62, 38), "laptop": (176, 178, 182), "person": (58, 46, 40)}[kind]
    grain = rng.normal(0, 5, (height, 1 if kind == "lectern" else width, 1))
    out[shape > 0] = np.clip(np.array(colour) + np.broadcast_to(grain, out.shape), 0, 255)[shape > 0]
    if kind == "lectern":
        out[y0 : y0 + max(2, round(0.05 * face))] = (150, 110, 76)
    seen: Truth = {}
    for region, at in truth.items():
        if at is None:
            seen[region] = None
        elif region == "chest":
            seen[region] = (at[0], min(at[1], (shoulders + top) / 2 / height)) if low else None
        else:
            x, y = at[0] * width, at[1] * height
            inside = bool(shape[min(height - 1, int(y)), min(width - 1, int(x))])
            if y < top - 0.1 * face:
                seen[region] = at
            elif inside and y > top + 0.2 * face:
                seen[region] = None
    return out, seen


def _shoulders(truth: Truth) -> float:
    """The shoulders' height in the picture; below the neck by half a face where they are not marked."""
    marks = [at[1] for at in (truth.get("left_shoulder"), truth.get("right_shoulder")) if at is not None]
    neck = truth.get("neck")
    assert marks or neck is not None
    return float(np.mean(marks)) if marks else neck[1]  # type: ignore[index]


def _middle(truth: Truth) -> float:
    chest = truth["chest"]
    assert chest is not None
    return chest[0]


def _region(name: str) -> Region:
    return next(region for region in REGIONS if region == name)


if __name__ == "__main__":
    print(make(Path(sys.argv[1]), Path(sys.argv[2])))
