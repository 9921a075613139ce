"""Where training should start a clip whose first frame hides the region that is touched later."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

import numpy as np
from pydantic import Field

from media.decode import Decoded
from media.requests import Frames
from prompts.hair import HAIR
from prompts.vocabulary import REGIONS
from stages.clip import Clip
from stages.contract import Array, Column, Score, Stage, StageConfig
from stages.geometry.approaches import spread
from stages.geometry.region_points import region_points
from stages.people import SEEN
from stages.regions import Regions

# Frames that may be looked at, each by `Regions`.
_TRIES: Final = 4


class ClipStart(Stage):
    """Where the clip should start, and the points of all regions there.

    That is the beginning, unless the region touched is hidden there and `Contacts` knows when that touch
    begins (a language model may mean another one): then the earliest of a few frames before it that show the
    region, if the rest is long enough to train on.
    """

    class Config(StageConfig):
        """Settings of `ClipStart`."""

        lead_s: float = Field(
            0.2, ge=0, description="a clip starts so long before the touch at the latest, s"
        )
        min_left_s: float = Field(
            1.0, gt=0, description="so much must be left of the clip, s (25 frames, InterAvatar C.1)"
        )

    reads = (
        *("people_times", "people_keypoints", "region_points", "duration_s"),
        *("interaction_region", "contact_region", "contact_person", "contact_start_s"),
    )
    writes: ClassVar[Mapping[str, Column | Array]] = {
        "clip_start_s": Score(
            "s", "where training should start the clip; the interaction's point is of that frame"
        ),
        "start_points": Array("[P, 22, 3]", "0-1", "region_points of the frame at clip_start_s"),
    }

    prompts = (HAIR,)

    def __init__(
        self,
        regions: Regions,
        frames: Frames = SEEN,
        config: Config | None = None,
    ) -> None:
        super().__init__(*regions.models, config=config)
        self.regions, self.frames = regions, frames

    @property
    def sees(self) -> tuple[Frames, ...]:
        """The frames that `People` saw."""
        return (self.frames,)

    @property
    def questions(self) -> int:
        """None of most clips: hair that the first frame hides is rare."""
        return 0

    def score(self, clip: Clip) -> dict[str, Any]:
        """0 s and the first frame's points wherever there is nothing better."""
        out = {"clip_start_s": 0.0, "start_points": clip["region_points"]}
        region, person, touch_s = (
            clip[name] for name in ("interaction_region", "contact_person", "contact_start_s")
        )
        if region is None or region != clip["contact_region"] or person is None or touch_s is None:
            return out
        index = REGIONS.index(region)
        if out["start_points"][person, index, 2] > 0:
            return out
        times, keypoints = np.asarray(clip["people_times"]), np.asarray(clip["people_keypoints"])
        images = clip.frames(self.frames).images
        aspect = images[0].shape[1] / images[0].shape[0]
        latest = min(touch_s - self.config.lead_s, (clip["duration_s"] or 0.0) - self.config.min_left_s)
        frames = np.flatnonzero((times > 0) & (times <= latest))
        # The hair's point is not made of keypoints; a head that is seen may show it.
        shown = REGIONS.index("nose") if region == "hair" else index
        maybe = np.array(
            [i for i in frames if region_points(keypoints[i, person], aspect)[shown, 2] > 0], np.intp
        )
        regions = self.regions.with_prompts({p.name: p.text for p in self.prompts})
        for i in spread(maybe, _TRIES):
            there = ([float(times[i])], [images[i]])
            frame = Clip(
                row=clip.row,
                decoded=Decoded(frames=dict.fromkeys(self.regions.sees, there)),
                arrays=clip.arrays
                | {"people_times": times[i : i + 1], "people_keypoints": keypoints[i : i + 1]},
                seed=clip.seed,
            )
            points = regions.score(frame)["region_points"]
            if points[person, index, 2] > 0:
                return {"clip_start_s": float(times[i]), "start_points": points}
        return out
