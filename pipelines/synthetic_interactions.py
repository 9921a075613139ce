"""Synthetic clips of people who react to touch, from portraits (InterAvatar §4.2, B.1 and §4.3)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from backends.roles import Roles
from manifests import features, storage, store
from manifests.licences import TRUTHS
from manifests.schema import ARROW_TYPES, COMMON_COLUMNS, arrow_field, to_rows
from media.crop import CROP
from pipelines.engine.ids import sample_id
from pipelines.engine.pipeline import Follow, Pipeline
from pipelines.engine.source import Listing
from pipelines.portraits import PortraitsSettings, portraits
from pipelines.selection import Choice, choose
from prompts.vocabulary import in_words, interaction_sentence
from stages.artifacts import Anatomy, Artifacts
from stages.attributes import Attributes
from stages.consistency import Consistency
from stages.contract import Column
from stages.faces import Faces
from stages.likeness import Likeness
from stages.motion import Motion
from stages.overlays import Overlays
from stages.probe import Probe
from stages.quality import Quality
from stages.shots import Shots
from stages.synthesise import Synthesise

# What a clip takes over from its portrait and the choice.
GIVEN: Mapping[str, Column] = {
    "portrait_id": Column("string", "", "Sample of the portraits manifest that the clip is made from."),
    "reaction_action": Column("string", "", "What the body does."),
    "reaction_emotion": Column("string", "", "What the face shows."),
    "reaction_intensity": Column("string", "", "mild, moderate or strong."),
    "synthesis_prompt": Column("string", "", "Text that the video is made from."),
    "portrait_face_embedding": Column("floats", "", "Identity of the portrait; null without a face."),
}
_COMMON = (
    *("caption", "caption_by", "interaction_type", "interaction_group", "interaction_region"),
    *("interaction_x", "interaction_y", "interaction_person", "interaction_prompt", "interaction_by"),
)


class SyntheticInteractionsSettings(PortraitsSettings):
    """Settings of synthetic_interactions: those of portraits, and those of the clips.

    A stage that both steps have takes the same settings in both.
    """

    clips: int = Field(
        40, ge=1, description="Clips to make, balanced over groups, types, regions, portraits."
    )
    max_seconds: float = Field(30.0, gt=0, description="Longest clip that is scored, s.")
    portraits_screen: str | None = Field(
        None, description="Screen of the portraits, a name or a file; --screen judges the clips."
    )
    synthesise: Synthesise.Config = Synthesise.Config()
    probe: Probe.Config = Probe.Config()
    shots: Shots.Config = Shots.Config()
    motion: Motion.Config = Motion.Config()
    likeness: Likeness.Config = Likeness.Config()
    overlays: Overlays.Config = Overlays.Config()
    attributes: Attributes.Config = Attributes.Config()


def synthetic_interactions(models: Roles, settings: SyntheticInteractionsSettings) -> Pipeline:
    """Clips of the portraits that the pipeline `portraits`, the first step, has kept."""
    s = settings
    vlm = models.vision_language_model
    return Pipeline(
        name="synthetic_interactions",
        stages=[
            Synthesise(models.image_to_video, config=s.synthesise),  # the portrait is the first frame
            Probe(config=s.probe),
            Shots(config=s.shots),
            Faces(models.face_detector, config=s.faces),
            Quality(models.image_quality, config=s.quality),  # luminance, blur
            Motion(models.point_tracker, models.person_mask, config=s.motion),
            Consistency(models.image_embedder, models.face_embedder, config=s.consistency),  # time, identity
            Likeness(models.face_embedder, config=s.likeness),  # identity against the portrait
            Overlays(models.text_detector, config=s.overlays),
            Attributes(models.attribute_embedder, config=s.attributes),  # for training
            Artifacts(vlm),
            Anatomy(vlm),
        ],
        screen="synthetic_interactions",
        max_seconds=s.max_seconds,
        follows=Follow(
            portraits(models, s),
            choose=lambda folder, listed: clips_to_make(folder, s, listed),
            fields=clip_fields(),
            wanted=s.clips,
            samples="clips",
            none="no kept portrait has a visible region with a reaction, so no clip could be made",
            screen=s.portraits_screen,
        ),
    )


def clips_to_make(folder: Path, settings: SyntheticInteractionsSettings, listed: pa.ChunkedArray) -> Listing:
    """The clips as a listing: one row for each chosen portrait, region and type.

    Args:
        folder: of the finished portraits run.
        settings: number of clips and seed.
        listed: ids of this run's portraits; others that the manifest still has are not used.

    Returns:
        No rows when no portrait was kept, or none has a visible region with a reaction.
    """
    columns = ("sample_id", "source", "source_uri", "source_size", "keep", "stages")
    there = store.column_names(folder / "manifest")
    some = [name for name in ("arrays", "licence", *TRUTHS, *CROP) if name in there]
    wanted = [*columns, *some, "regions", "reactions", "reactions_by"]
    table = store.read(folder / "manifest", wanted)
    chosen = pc.and_(table["keep"], pc.is_in(table["sample_id"], value_set=listed))
    kept = {row["sample_id"]: row for row in to_rows(table.filter(chosen))}
    # A point is needed, so a reaction counts only where its region is still visible.
    for row in kept.values():
        row["points"] = {r["region"]: r for r in row["regions"] or []}
        row["reactions"] = [r for r in row["reactions"] or [] if r["region"] in row["points"]]
    choices = choose((kept[name] for name in sorted(kept)), settings.clips, settings.seed)
    names = sorted({choice.portrait for choice in choices})
    vectors = storage.each(lambda name: _embedding(folder, kept[name]), names, storage.is_remote(folder))
    embeddings = dict(zip(names, vectors, strict=True))
    rows = [_row(choice, kept[choice.portrait], embeddings[choice.portrait]) for choice in choices]
    return Listing.of(rows, clip_fields())


def clip_fields() -> list[pa.Field]:
    """Arrow fields of what the listing gives beyond the source columns."""
    fields = [arrow_field(name, COMMON_COLUMNS[name]) for name in _COMMON]
    given = {"from": "input list"}
    return fields + [
        pa.field(n, ARROW_TYPES[c.type], metadata={"unit": c.unit, "meaning": c.meaning, **given})
        for n, c in GIVEN.items()
    ]


def _embedding(folder: Path, row: Mapping[str, Any]) -> list[float] | None:
    try:
        vector = features.load_features(folder, row, "consistency")["face_embedding"]
    except (KeyError, FileNotFoundError, ValueError):
        return None
    return [float(v) for v in vector] if np.isfinite(vector).all() else None


def _row(choice: Choice, portrait: Mapping[str, Any], embedding: list[float] | None) -> dict[str, Any]:
    reaction = choice.reaction
    kind, region = reaction["interaction_type"], reaction["region"]
    point = portrait["points"][region]
    text = f"{reaction['action']} {reaction['emotion']}"
    slug = f"{region}-{kind}-{choice.portrait}"
    return {
        "sample_id": sample_id(portrait["source"], slug, None, None),
        "source": portrait["source"],
        "source_uri": portrait["source_uri"],
        "start_s": None,
        "end_s": None,
        **{name: portrait.get(name) for name in CROP},
        "source_size": portrait["source_size"],
        **{name: portrait.get(name) for name in ("licence", *TRUTHS)},
        "parent_id": choice.portrait,
        "caption": text,
        "caption_by": portrait["reactions_by"],
        "interaction_type": kind,
        "interaction_group": reaction["interaction_group"],
        "interaction_region": region,
        "interaction_x": point["x"],
        "interaction_y": point["y"],
        "interaction_person": 0,
        "interaction_prompt": interaction_sentence(kind),
        "interaction_by": "selection",
        "portrait_id": choice.portrait,
        "reaction_action": reaction["action"],
        "reaction_emotion": reaction["emotion"],
        "reaction_intensity": reaction["intensity"],
        "synthesis_prompt": synthesis_prompt(reaction),
        "portrait_face_embedding": embedding,
    }


def synthesis_prompt(reaction: Mapping[str, Any]) -> str:
    """The text that the video model gets: the reaction, its strength, and a camera that stays.

    It names no touch and nobody else, so that nobody else is drawn.
    """
    return (
        f"{reaction['action']} {reaction['emotion']} The reaction is {reaction['intensity']} and begins at "
        f"the {in_words(reaction['region'])}. One person, facing the camera; a static camera; the "
        "background stays as it is."
    )
