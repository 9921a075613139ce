"""Fits the model of `stages/geometry/touch_model.py` to labelled clips, and says how good it is on others.

`python -m tests.truth.fit_touch SAMPLES MADE FOLDER`: SAMPLES holds the real clips of `labels/touch.csv`,
MADE what `tests.truth.make_touch` wrote, FOLDER keeps what was measured of each clip. Prints the weights, and
precision and recall by clips and by seconds, each fold judged by the model that the others give.
"""

from __future__ import annotations

import csv
import pickle
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from backends.bodies.hand_detector import MediaPipeHands
from backends.bodies.person_mask import SelfieSegmentation
from backends.bodies.pose import MediaPipeHolistic
from backends.faces.face_detector import CenterFace
from media.decode import decode
from media.files import MediaError
from prompts.vocabulary import REGIONS
from stages.clip import Clip
from stages.contacts import Contacts
from stages.geometry.approaches import ZONES, Approach
from stages.geometry.touch_model import CLAIMED, FEATURES, UNCERTAIN, UNKNOWN, lacking
from stages.people import People
from stages.touch_evidence import Sight

LABELS = Path(__file__).parent / "labels" / "touch.csv"
# Real clips whose hands or people are in the made ones belong to their fold; the others are dealt out.
FOLD_OF = {
    **{"latentsync_man_en": 0, "edtalk_obama": 0, "retalking_man_office": 0},
    **{"latentsync_man_pt": 1, "clearervoice_debate_two": 1, "retalking_woman_bluebg": 1},
    **{"sam2_hands_cups": 2, "latentsync_woman_ru": 2, "liveportrait_man_selfie_noaudio": 2},
    **{
        "facerec_stage_multishot": 3,
        "liveportrait_woman_lake": 3,
        "intel_asl_brother": 3,
        "intel_asl_learn": 3,
    },
    **{"intel_asl_book": 3, "liveportrait_man_outdoor_zh": 3, "retalking_woman_glasses": 3},
    **{"datajuicer_hair_braiding": 0, "pyfeat_woman_emotions": 1, "hellomeme_man_subtitles": 2},
}
FOLDS = 4
# Of a clip only so much is measured, s.
PART = {
    **{"intel_asl_learn": (0, 4), "intel_asl_brother": (0, 4), "intel_asl_book": (0, 4)},
    **{"pyfeat_woman_emotions": (0, 16), "datajuicer_hair_braiding": (5, 12.2), "latentsync_man_en": (0, 5)},
    **{"latentsync_woman_ru": (3.4, 6), "liveportrait_woman_lake": (0, 3), "latentsync_man_pt": (4.8, 7.8)},
    **{"hellomeme_man_subtitles": (1.2, 2.8), "facerec_stage_multishot": (3.7, 7.7)},
    **{"clearervoice_debate_two": (4.5, 7.5), "sam2_man_juggle": (8, 10), "sam2_hands_cups": (0, 1)},
    **{"torchcodec_nasa_voiceover": (5, 7)},
}
OTHERS = (0.0, 2.0)
REAL = 4.0  # so much a real clip weighs against a made one
# Each weight is drawn to a prior one, so that what the clips here cannot value (a hat that is taken for a
# hand is rare) still speaks; more so what a touch cannot do without: a hand, that hides the body and does not
# turn its palm away from it.
PRIOR, PRIORS = 0.5, {"on_body": 2.0, "stands_out": 1.5, "again": 1.5, "back": 1.0}
RIDGE = 0.01
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Labelled:
    """A clip: what is touched when (region alternatives, start, end), and its candidates."""

    name: str
    fold: int
    made: bool
    touches: Sequence[tuple[frozenset[str], float, float]]
    candidates: Sequence[tuple[Approach, Sight]]
    times: Floats

    def touched(self, approach: Approach) -> list[frozenset[str]]:
        """Regions of the labelled touches that most of its rest lies in."""
        now = self.times[approach.resting]
        return [r for r, a, b in self.touches if ((now >= a - 0.15) & (now <= b + 0.15)).mean() > 0.5]

    def is_touch(self, approach: Approach) -> bool:
        """Whether one of these is of its zone."""
        zone = ZONES[approach.zone]
        return any(zone[REGIONS.index(r)] for regions in self.touched(approach) for r in regions)


def labelled(samples: Path, made: Path, folder: Path) -> Iterator[Labelled]:
    """Every clip with its candidates; measured once, then kept in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    people = People(CenterFace(), MediaPipeHolistic(), MediaPipeHands())
    contacts = Contacts(MediaPipeHands(), SelfieSegmentation(), people.sees[0])
    for stage in (people, contacts):
        stage.setup()
    order = []
    for base, labels in ((samples, LABELS), (made, made / "touch.csv")):
        touches: dict[str, list[tuple[frozenset[str], float, float]]] = defaultdict(list)
        with labels.open() as file:
            for row in csv.DictReader(file):
                at = touches[row["media"]]
                if row["value"] != "none":
                    at.append(
                        (frozenset(row["value"].split("|")), float(row["start_s"]), float(row["end_s"]))
                    )
        for number, (media, at) in enumerate(touches.items()):
            turn = (0.5, number) if base is samples else _turn(media, number)
            turn = (-1, number) if Path(media).stem in PART else turn
            order.append((turn, base, media, at))
    for (_, number), base, media, at in sorted(order):
        stem = Path(media).stem
        fold = int(stem[0]) if base is made else FOLD_OF.get(stem, number % FOLDS)
        part = (max(0.0, at[0][1] - 0.7), at[0][2] + 0.7) if base is made and at else PART.get(stem, OTHERS)
        if (measured := _measured(base / media, part, people, contacts, folder)) is not None:
            inside = [(r, a, b) for r, a, b in at if a < part[1] and b > part[0]]
            yield Labelled(stem, fold, base is made, inside, measured[1], measured[0])


def _turn(media: str, number: int) -> tuple[float, int]:
    """Each kind once, of another fold each time, then each again: so that any beginning is a fair sample."""
    if "photograph" in media:
        return -0.5, number
    kind = number % 34
    return (int(media[0]) - kind) % FOLDS, kind


def _measured(
    path: Path, part: tuple[float, float], people: People, contacts: Contacts, folder: Path
) -> tuple[Floats, list[tuple[Approach, Sight]]] | None:
    """Times of the frames, and candidates; people and candidates are kept apart, for each may change
    alone.
    """
    kept, looked = folder / f"{path.name}.people.pkl", folder / f"{path.name}.sight.pkl"
    if not looked.exists():
        if (folder / "stop").exists():
            return None
        try:
            decoded = decode(path, people.sees, *part)
        except MediaError:
            return np.zeros(0), []
        if not kept.exists():
            kept.write_bytes(pickle.dumps(people.score(Clip(row={}, decoded=decoded))))
        out = pickle.loads(kept.read_bytes())
        seen = contacts.candidates(Clip(row=out, decoded=decoded)) if out["people_tracked"] else []
        looked.write_bytes(pickle.dumps([sight for _, sight in seen]))
        print(path.name, len(seen), flush=True)
    out, sights = pickle.loads(kept.read_bytes()), pickle.loads(looked.read_bytes())
    near = [a for _, _, a in contacts.approaches(Clip(row=out))] if out["people_tracked"] else []
    return np.asarray(out["people_times"], np.float64) + part[0], list(zip(near, sights, strict=True))


def rows_of(clip: Labelled) -> Floats:
    """Features of the candidates that may be claimed, [N, F]."""
    used = [(a, s) for a, s in clip.candidates if a.zone in CLAIMED]
    rows = [[feature(a, s) for feature in FEATURES.values()] for a, s in used]
    return np.array(rows, np.float64).reshape(len(rows), len(FEATURES))


def table(clips: Sequence[Labelled]) -> tuple[Floats, Floats, Floats, Floats]:
    """Features [N, F], whether each is a touch, its fold, and its weight: clips weigh alike, real ones
    more.
    """
    x, y, fold, weight = [], [], [], []
    for clip in clips:
        used = [(a, s) for a, s in clip.candidates if a.zone in CLAIMED]
        for (approach, _), row in zip(used, rows_of(clip), strict=True):
            if clip.touched(approach) and not clip.is_touch(approach):
                continue  # the hand is at the face, and its wrist before the shoulder
            x.append(row)
            y.append(clip.is_touch(approach))
            fold.append(clip.fold)
            weight.append((1 if clip.made else REAL) / len(used) ** 0.5)
    return tuple(np.array(v, np.float64) for v in (x, y, fold, weight))  # type: ignore[return-value]


def fit(x: Floats, y: Floats, weight: Floats) -> tuple[Floats, Floats, Floats]:
    """Means, scales and weights (the last is the bias) of a logistic model with weights of at least 0.

    What is unknown counts as `UNKNOWN`. Each feature is made so that more of it speaks for a touch.
    """
    mean, scale = np.nanmean(x, 0), np.nanstd(x, 0) + 1e-9
    z = np.column_stack([np.nan_to_num((x - mean) / scale, nan=UNKNOWN), np.ones(len(x))])
    prior = np.array([PRIORS.get(name, PRIOR) for name in FEATURES])
    w = np.zeros(z.shape[1])
    weight = weight * np.where(y > 0, 0.5 / (weight * y).sum(), 0.5 / (weight * (1 - y)).sum())
    for _ in range(4000):
        p = 1 / (1 + np.exp(-z @ w))
        slope = z.T @ (weight * (p - y)) + RIDGE * np.append(w[:-1] - prior, 0)
        w -= 1.0 * slope
        w[:-1] = np.maximum(w[:-1], 0)
    return mean, scale, w


def predict(x: Floats, model: tuple[Floats, Floats, Floats]) -> Floats:
    """Probabilities of rows of features."""
    mean, scale, w = model
    z = np.column_stack([np.nan_to_num((x - mean) / scale, nan=UNKNOWN), np.ones(len(x))])
    return np.asarray(1 / (1 + np.exp(-np.clip(z @ w, -50, 50))))


def judge(clip: Labelled, model: tuple[Floats, Floats, Floats]) -> Floats:
    """How likely each candidate of a clip that may be claimed is a touch."""
    lacks = np.array([lacking(a, s) is not None for a, s in clip.candidates if a.zone in CLAIMED], bool)
    likely = predict(rows_of(clip), model)
    return np.where(lacks, np.minimum(likely, UNCERTAIN), likely)


def report(clips: Sequence[Labelled], judged: Mapping[str, Floats]) -> Iterator[str]:
    """Precision and recall of the surest candidate of each clip, by clips and by seconds, at some
    thresholds.
    """
    best = []
    for clip in clips:
        used, of = [a for a, _ in clip.candidates if a.zone in CLAIMED], judged[clip.name]
        best.append((clip, used[int(of.argmax())] if used else None, float(of.max()) if used else 0.0))
    for sure in (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9):
        for which in ("all", "real", "made"):
            rows = [b for b in best if which == "all" or b[0].made == (which == "made")]
            claims = [(c, a) for c, a, p in rows if a is not None and p >= sure]
            right = [c for c, a in claims if c.is_touch(a)]
            true = [c for c, _, _ in rows if c.touches]
            seconds = [_seconds(c, a if p >= sure else None) for c, a, p in rows]
            claimed_s, right_s, true_s = (sum(v[i] for v in seconds) for i in range(3))
            yield (
                f"{sure} {which}: clips {len(right)}/{len(claims)} right, {len(right)}/{len(true)} found; "
                f"seconds {right_s:.1f}/{claimed_s:.1f} right, {right_s:.1f}/{true_s:.1f} found"
            )
    for clip, approach, p in best:
        if approach is not None or clip.touches:
            found = approach is not None and clip.is_touch(approach)
            where = "" if approach is None else f"{REGIONS[approach.region]} {approach.zone}"
            want = "|".join(sorted(clip.touches[0][0])) if clip.touches else "none"
            yield f"{clip.name:28s} {p:.2f} {'ok ' if found else 'no '} want {want}; {where}"


def _seconds(clip: Labelled, approach: Approach | None) -> tuple[float, float, float]:
    """Seconds that are claimed, that are claimed rightly, and that are touched; to a frame's tenth."""
    now = np.arange(clip.times[0], clip.times[-1] + 0.1, 0.01) if len(clip.times) else np.zeros(0)
    truth, claim = np.zeros(len(now), bool), np.zeros(len(now), bool)
    for regions, a, b in clip.touches:
        if approach is None or any(ZONES[approach.zone][REGIONS.index(r)] for r in regions):
            truth |= (now >= a) & (now < b)
    if approach is not None:
        begin = clip.times[approach.resting[0]]
        claim = (now >= begin) & (now < begin + approach.seconds)
    return tuple(float(v.sum()) / 100 for v in (claim, claim & truth, truth))  # type: ignore[return-value]


if __name__ == "__main__":
    clips = list(labelled(*map(Path, sys.argv[1:4])))
    x, y, fold, weight = table(clips)
    print(len(clips), "clips", len(y), "candidates", int(y.sum()), "touches")
    judged: dict[str, Floats] = {}
    for k in range(FOLDS):
        model = fit(x[fold != k], y[fold != k], weight[fold != k])
        judged |= {c.name: judge(c, model) for c in clips if c.fold == k}
    mean, scale, w = fit(x, y, weight)
    for name, m, s, v in zip(FEATURES, mean, scale, w, strict=False):
        print(f'    "{name}": ({m:.3f}, {s:.3f}, {v:.3f}),')
    print(f"BIAS: Final = {w[-1]:.3f}")
    for line in report(clips, judged):
        print(line)
