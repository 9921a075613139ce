"""Whether a portrait is a photograph of a person, a painting or an animal, without a language model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field

from backends.pictures.image_classifier import ImageClassifier, animal_mass
from media.requests import Frames
from stages.ask import first_frame
from stages.clip import Clip
from stages.contract import Column, Score, Stage, StageConfig
from stages.faces import boxes_at

Kind = Literal["photo", "painting", "animal", "no_person"]

# All limits were set at 720 px on 15 photographs of people, 58 frames with a face from 20 clips, one painting
# and one monkey, and on filtered versions of the photographs.
#
# Animals: mass at most 0.24 in photographs, 0.99 for the monkey.
ANIMAL_LIMIT = 0.5
# painting_score is scaled so that each cue's limit below comes out at 0.5.
PAINTING_LIMIT = 0.5

# Median over mean of a face's gradients: skin shades evenly, at least 0.36 in photographs (0.35 with
# brightness raised by 60 %, 0.45 after JPEG at quality 10-30; JPEG at 5 falls to 0). Oil filter: median
# 0.21; palette of 12 colours: at most 0.09; edge-preserving stylisation: median 0.28, greatest 0.47.
SHADING_LIMIT = 0.30
# Share of the face on strong edges: at most 0.20 in photographs (over-sharpened or overexposed ones pass
# 0.3), pencil filter: median 0.46, four in five 0.25 and more.
LINES_LIMIT = 0.25
# One hue family over the whole picture and a finely grained face, both. The painting has 0.981 and
# 0.76; the photographs that have colours of their own reach 0.953 (grain 0.2), single persons' grain 0.59.
COHERENCE_LIMIT = 0.967
GRAIN_LIMIT = 0.67
# Below these colours say nothing: a grey, a toned or a tinted photograph has one hue too. Chroma, in Lab
# units: 6.4 for the greyish clip that is as coherent as the painting, 19 for the painting. Share of the
# chroma that does not follow from lightness: sepia at most 0.29, tungsten light mostly under 0.25, the
# painting 0.33.
MIN_CHROMA = 10.0
MIN_VARIETY = 0.30

MIN_CROP = 128  # px, of the animal crop: smaller ones of men came out as animals (0.7-0.8) at JPEG 10-40
MIN_FACE = 128  # px, longer side of the box; smaller faces are all edges (lines 0.30 at 93 px)
_SHADING_SIDE = 160  # px, the size at which gradients are compared
_GRAIN_SIDE = 224  # px, the size at which grain is compared
_EDGE = 0.4  # gradient of a strong edge, in standard deviations of the face's luminance
_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)


class Depiction(Stage):
    """What the first frame depicts: cues for animals and for pictures made by hand or filter.

    The detector of faces takes a monkey (0.82) and a Raphael (0.92) for persons; these cues tell them apart
    without a language model, and are weaker than one. `painting_score` is the largest of three:

    - a face without shading: plateaus and steps, as in flat drawings, posters and oil filters;
    - a face made of lines, as in pencil drawings;
    - one hue family all over, without being grey or toned, together with a finely grained face: earth
      colours, varnish and canvas of an old master.

    The last was seen on one real painting only, and its limits lie beside that painting (score 0.57): take
    it for an example, not for a detector of paintings. It fails on the same painting at JPEG quality 75 or
    under 480 px. The first two were seen on filtered photographs only: of twelve each, they catch twelve
    in few colours, twelve in pencil, seven in oil and four "stylised" with edges kept. Rendered and
    generated people, smooth paintings of other colours, sculptures and photographs of printed ones are
    not told from persons. A photograph in earth colours with strong film grain may pass for a painting.

    Features published for whole paintings (Cutzu, Hammoud and Leykin 2005: saturation, number of
    colours, edges of colour against edges of lightness) rank this painting among the photographs, so
    they are not used. What a file says of its camera is not seen here: frames carry none of it.
    """

    class Config(StageConfig):
        """Settings of `Depiction`."""

        short_side: int = Field(
            720, ge=480, description="shorter side of the frame, pixels; limits hold at 720"
        )
        crop: float = Field(
            1.3, ge=1, le=3, description="side of the animal crop, in longer sides of the face"
        )
        max_gap_s: float = Field(
            0.25, gt=0, description="a face box counts for the first frame if so near in time, seconds"
        )

    reads = ("face_times", "face_boxes")
    writes: ClassVar[Mapping[str, Column]] = {
        "animal_probability": Score(
            "0-1", "ImageNet mass on animals, of the main face; of the whole picture without a face of 98 px"
        ),
        "painting_score": Score(
            "0-1, limit 0.5", "strongest cue of a picture not photographed; null without a face of 128 px"
        ),
        "face_shading": Score("ratio", "median over mean gradient of the face; low: flat areas and steps"),
        "face_lines": Score("0-1", "share of the face on strong edges; high: drawn in lines"),
        "face_grain": Score("ratio", "the face's contrast at 1 px over that at 4 px, at 224 px"),
        "palette_coherence": Score(
            "0-1", "length of the mean over the mean length of Lab chroma; null for grey or toned pictures"
        ),
    }

    def __init__(self, image_classifier: ImageClassifier, config: Config | None = None) -> None:
        super().__init__(image_classifier, config=config)
        self.image_classifier = image_classifier

    @property
    def sees(self) -> tuple[Frames, ...]:
        """The first frame."""
        return (first_frame(self.config.short_side),)

    def score(self, clip: Clip) -> dict[str, Any]:
        """The cues; those of the face are None where the first frame shows none that is large enough."""
        frames = clip.frames(self.sees[0])
        image = frames.images[0]
        box = np.full(4, np.nan, np.float32)
        if clip["face_boxes"] is not None and clip["face_times"] is not None:
            box = boxes_at(frames.times[:1], clip["face_times"], clip["face_boxes"], self.config.max_gap_s)[0]
        seen = bool(np.isfinite(box).all())
        shown = around(image, box, self.config.crop) if seen else image
        if min(shown.shape[:2]) < MIN_CROP:
            shown = image
        face = luminance(image, box) if seen else None
        coherence = palette_coherence(image)
        out: dict[str, Any] = dict.fromkeys(self.writes)
        out |= {
            "animal_probability": animal_mass(self.image_classifier.classify(shown)),
            "palette_coherence": coherence,
        }
        if face is not None and max(face.shape) >= MIN_FACE:
            even, lines = shading(face)
            grained = grain(face)
            out |= {
                "face_shading": even,
                "face_lines": lines,
                "face_grain": grained,
                "painting_score": painting_score(even, lines, grained, coherence),
            }
        return out


def depiction(animal_probability: float | None, painting_score: float | None, num_people: int | None) -> Kind:
    """The stand-in's answer to what a portrait depicts; evidence that is None speaks for nothing.

    An animal comes first: its face may count among the people. `num_people` of 0 or None is no person.
    """
    if animal_probability is not None and animal_probability >= ANIMAL_LIMIT:
        return "animal"
    if not num_people:
        return "no_person"
    return "painting" if painting_score is not None and painting_score >= PAINTING_LIMIT else "photo"


def painting_score(even: float, lines: float, grained: float, coherence: float | None) -> float:
    """The strongest of the three cues, 0-1; each is linear and 0.5 at its limit."""
    flat = 1 - even / (2 * SHADING_LIMIT)
    drawn = lines / (2 * LINES_LIMIT)
    old = 0.0
    if coherence is not None:
        one_hue = 1 - (1 - coherence) / (2 * (1 - COHERENCE_LIMIT))
        old = min(one_hue, grained / (2 * GRAIN_LIMIT))
    return float(np.clip(max(flat, drawn, old), 0, 1))


def around(
    image: npt.NDArray[np.uint8], box: npt.NDArray[np.float32], factor: float
) -> npt.NDArray[np.uint8]:
    """The square around a normalised box, `factor` times its longer side, cut at the picture."""
    height, width = image.shape[:2]
    x0, y0, x1, y1 = box * np.array([width, height, width, height])
    x, y, reach = (x0 + x1) / 2, (y0 + y1) / 2, max(x1 - x0, y1 - y0, 2) * factor / 2
    top, left = max(0, round(float(y - reach))), max(0, round(float(x - reach)))
    return np.ascontiguousarray(image[top : round(float(y + reach)), left : round(float(x + reach))])


def luminance(image: npt.NDArray[np.uint8], box: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The face's luminance, float32 [H, W], 0-255, unrounded: an 8-bit grey would add plateaus."""
    height, width = image.shape[:2]
    x0, y0, x1, y1 = np.round(np.clip(box, 0, 1) * np.array([width, height, width, height])).astype(int)
    return image[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)].astype(np.float32) @ _LUMINANCE


def shading(face: npt.NDArray[np.float32]) -> tuple[float, float]:
    """Median over mean gradient, and the share of strong edges; black and burnt-out pixels left out."""
    small = _at_most(face, _SHADING_SIDE)
    across, down = np.abs(np.diff(small, axis=1))[:-1], np.abs(np.diff(small, axis=0))[:, :-1]
    exposed = (small[:-1, :-1] > 3) & (small[:-1, :-1] < 252)
    steps = np.maximum(across, down)
    if exposed.mean() >= 0.5:
        steps = steps[exposed]
    mean, spread = float(steps.mean()), max(float(small.std()), 1.0)
    return float(np.median(steps)) / max(mean, 1e-6), float((steps > _EDGE * spread).mean())


def grain(face: npt.NDArray[np.float32]) -> float:
    """Median contrast of the finest band over that two octaves below, both by Gaussians; 0 when smooth."""
    small = _at_most(face, _GRAIN_SIDE)
    one, two, four = (cv2.GaussianBlur(small, (0, 0), sigma) for sigma in (1, 2, 4))
    # 0.3 of 255 keeps the quotient of a featureless face from being noise over noise.
    return float(np.median(np.abs(small - one)) / (np.median(np.abs(two - four)) + 0.3))


def palette_coherence(image: npt.NDArray[np.uint8]) -> float | None:
    """How much all colours are of one hue, 0-1; None when they are too weak or only follow lightness."""
    factor = min(1.0, 240 / min(image.shape[:2]))
    small = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    lab = cv2.cvtColor(small.astype(np.float32) / 255, cv2.COLOR_RGB2LAB).reshape(-1, 3).astype(np.float64)
    light, colour = lab[:, 0] / 100, lab[:, 1:]
    chroma = float(np.linalg.norm(colour, axis=1).mean())
    if chroma < MIN_CHROMA:
        return None
    curve = np.stack([np.ones_like(light), light, light**2], 1)
    rest = colour - curve @ np.linalg.lstsq(curve, colour, rcond=None)[0]
    if float(np.sqrt((rest**2).sum(1).mean())) < MIN_VARIETY * chroma:
        return None
    return float(np.linalg.norm(colour.mean(0))) / chroma


def _at_most(face: npt.NDArray[np.float32], side: int) -> npt.NDArray[np.float32]:
    """The face with its longer side at `side` pixels; never enlarged."""
    factor = side / max(face.shape)
    if factor >= 1:
        return face
    size = (max(2, round(face.shape[1] * factor)), max(2, round(face.shape[0] * factor)))
    return np.asarray(cv2.resize(face, size, interpolation=cv2.INTER_AREA), np.float32)
