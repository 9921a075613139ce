"""Fits the model of `stages/touch_model.py` to labelled clips, and says how good it is on others.

`python -m tests.truth.fit_touch SAMPLES MADE FOLDER`: SAMPLES holds the real clips of `labels/touch.csv`,
MADE what `tests.truth.make_touch` wrote, FOLDER keeps what was measured of each clip. Prints the weights, and
precision and recall by clips and by seconds, each fold judged by the model that the others give.
"""

from __future__ import annotations

import csv
import pickle
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
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
from stages.people import People
from stages.touch_evidence import Sight
from stages.touch_model import FEATURES, NEEDED, UNKNOWN, Needed, judge

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
SURE = (0.31, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.8, 0.9)
Floats = npt.NDArray[np.float64]
Model = tuple[Floats, Floats, Floats]


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


Found = tuple[Labelled, Approach | None, float]


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
    """Features of the candidates, [N, F]."""
    rows = [[feature(a, s) for feature in FEATURES.values()] for a, s in clip.candidates]
    return np.array(rows, np.float64).reshape(len(rows), len(FEATURES))


def table(clips: Sequence[Labelled]) -> tuple[Floats, Floats, Floats, Floats]:
    """Features [N, F], whether each is a touch, its fold, and its weight: clips weigh alike, real ones
    more.
    """
    x, y, fold, weight = [], [], [], []
    for clip in clips:
        for (approach, _), row in zip(clip.candidates, rows_of(clip), strict=True):
            if clip.touched(approach) and not clip.is_touch(approach):
                continue  # the hand is at the face, and its wrist before the shoulder
            x.append(row)
            y.append(clip.is_touch(approach))
            fold.append(clip.fold)
            weight.append((1 if clip.made else REAL) / len(clip.candidates) ** 0.5)
    return tuple(np.array(v, np.float64) for v in (x, y, fold, weight))  # type: ignore[return-value]


def fit(x: Floats, y: Floats, weight: Floats) -> Model:
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


def predict(x: Floats, model: Model) -> Floats:
    """Probabilities of rows of features."""
    mean, scale, w = model
    z = np.column_stack([np.nan_to_num((x - mean) / scale, nan=UNKNOWN), np.ones(len(x))])
    return np.asarray(1 / (1 + np.exp(-np.clip(z @ w, -50, 50))))


def needed_by(clips: Sequence[Labelled]) -> Needed:
    """What is needed, its limits below all but the fiftieth part of some clips' touches."""
    touches = [(a, s) for clip in clips for a, s in clip.candidates if clip.is_touch(a)]
    return {
        name: (of, float(np.nanquantile([of(a, s) for a, s in touches], 0.02)) - 1e-6)
        for name, (of, _) in NEEDED.items()
    }


def surest(clip: Labelled, model: Model, needed: Needed = NEEDED) -> tuple[Approach | None, float]:
    """The candidate that is likeliest a touch, and how likely; None, 0 without any."""
    judged = judge(clip.candidates, [float(p) for p in predict(rows_of(clip), model)], needed)
    best = max(judged, key=lambda one: one.likely, default=None)
    return (None, 0.0) if best is None else (best.approach, best.likely)


def counts(rows: Sequence[Found], sure: float) -> tuple[int, int, int]:
    """Clips that are claimed, that are claimed rightly, and that have a touch."""
    claims = [(clip, a) for clip, a, p in rows if a is not None and p >= sure]
    return len(claims), sum(c.is_touch(a) for c, a in claims), sum(bool(c.touches) for c, _, _ in rows)


def seconds(rows: Sequence[Found], sure: float) -> tuple[float, float, float]:
    """The same by seconds, to a hundredth."""
    out = np.zeros(3)
    for clip, approach, p in rows:
        now = np.arange(clip.times[0], clip.times[-1] + 0.1, 0.01) if len(clip.times) else np.zeros(0)
        truth, right, claim = (np.zeros(len(now), bool) for _ in range(3))
        for regions, a, b in clip.touches:
            at = (now >= a) & (now < b)
            truth |= at
            if approach and any(ZONES[approach.zone][REGIONS.index(r)] for r in regions):
                right |= at
        if approach and p >= sure:
            begin = clip.times[approach.resting[0]]
            claim = (now >= begin) & (now < begin + approach.seconds)
        out += [v.sum() / 100 for v in (claim, claim & right, truth)]
    return float(out[0]), float(out[1]), float(out[2])


def said(name: str, clips: tuple[int, int, int], seconds: tuple[float, float, float]) -> str:
    """Precision and recall in a line."""
    (claimed, right, true), (claimed_s, right_s, true_s) = clips, seconds
    return (
        f"{name}: clips {right}/{claimed} right, {right}/{true} found; "
        f"seconds {right_s:.1f}/{claimed_s:.1f} right, {right_s:.1f}/{true_s:.1f} found"
    )


def report(rows: Sequence[Found]) -> Iterator[str]:
    """Precision and recall at some thresholds, and every clip with a candidate or a touch."""
    for sure in SURE:
        for which in ("all", "real", "made"):
            some = [r for r in rows if which == "all" or r[0].made == (which == "made")]
            yield said(f"{sure} {which}", counts(some, sure), seconds(some, sure))
    for clip, approach, p in rows:
        if approach is not None or clip.touches:
            found = "ok" if approach is not None and clip.is_touch(approach) else "no"
            where = "" if approach is None else f"{REGIONS[approach.region]} {approach.zone}"
            want = "|".join(sorted(clip.touches[0][0])) if clip.touches else "none"
            yield f"{clip.name:28s} {p:.2f} {found} want {want}; {where}"


def chosen_elsewhere(rows: Sequence[Found]) -> str:
    """The same where each fold's threshold is chosen on the others: the lowest with a precision of 0.9."""
    clips, lengths, chosen = np.zeros(3, int), np.zeros(3), []
    for k in range(FOLDS):
        here, others = ([r for r in rows if (r[0].fold == k) == own] for own in (True, False))
        good = [s for s in SURE if (c := counts(others, s))[1] >= 0.9 * c[0]]
        chosen.append(min(good, default=SURE[-1]))
        clips += counts(here, chosen[-1])
        lengths += seconds(here, chosen[-1])
    c, s = clips.tolist(), lengths.tolist()
    return said(f"thresholds {chosen} from other folds", (c[0], c[1], c[2]), (s[0], s[1], s[2]))


if __name__ == "__main__":
    clips = list(labelled(*map(Path, sys.argv[1:4])))
    x, y, fold, weight = table(clips)
    print(len(clips), "clips", len(y), "candidates", int(y.sum()), "touches")
    found: list[Found] = []
    strict: list[Found] = []
    for k in range(FOLDS):
        model = fit(x[fold != k], y[fold != k], weight[fold != k])
        needed = needed_by([c for c in clips if c.fold != k])
        found += [(c, *surest(c, model)) for c in clips if c.fold == k]
        strict += [(c, *surest(c, model, needed)) for c in clips if c.fold == k]
    mean, scale, w = fit(x, y, weight)
    for name, m, s, v in zip(FEATURES, mean, scale, w, strict=False):
        print(f'    "{name}": ({m:.3f}, {s:.3f}, {v:.3f}),')
    print(f"BIAS: Final = {w[-1]:.3f}")
    print("What is needed, and the threshold, from the other folds as well:")
    print(chosen_elsewhere(strict))
    for line in report(found):
        print(line)
