"""Tasks with predictions that Label Studio imports, and the labelling interface that shows them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

from manifests import storage
from pipelines.export.rows import ExportedRun, new_name, refuse_manifest, rows_of, scalar_columns

INTERFACE = "config.xml"
TASKS_A_FILE = 20_000  # one import takes 250,000 tasks, and 200 MB
URL = "/data/local-files/?d="  # of a file below LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT
VIDEO, FPS = "video", "fps"
DEFAULT_FPS = 24.0  # as Label Studio assumes
BOX = 4.0  # % of width and height: its video has regions that are boxes, no points
TOUCH, ANY_REGION = "touch", "point"


def write_labelstudio(run: ExportedRun, output: Path, clips: Mapping[str, str]) -> int:
    """Write tasks-NNNNN.json and config.xml; returns how many tasks there are, one for each clip.

    A task's data are all columns of one value a row. Its predictions are what the run found: the point
    that is touched, as a box on the first picture; type and region of the touch; the caption; the verdict.

    Args:
        run: whose rows.
        output: the folder; local or any fsspec URL. Label Studio's document root.
        clips: sample_id -> path of its clip, relative to the folder.

    Raises:
        InputError: the folder is the run's own.
        RunError: the manifest was changed meanwhile.
    """
    refuse_manifest(run, output)
    labels = _Labels()
    before = {path.name for path in storage.files(output, ".json") if path.name.startswith("tasks-")}
    count, names = 0, []
    for number, tasks in enumerate(_in_files(_tasks(run, clips, labels))):
        names.append(f"tasks-{number:05d}.json")
        lines = [json.dumps(task, ensure_ascii=False, allow_nan=False) for task in tasks]
        text = "[\n" + ",\n".join(lines) + "\n]\n"
        storage.write_bytes(output / names[-1], text.encode("utf-8", "replace"))
        count += len(tasks)
    storage.remove(output / name for name in before - set(names))
    storage.write_bytes(output / INTERFACE, labels.interface())
    return count


class _Labels:
    """The words that the predictions use: the interface must have each of them."""

    def __init__(self) -> None:
        self.regions: dict[str, None] = {}
        self.types: dict[str, None] = {}

    def interface(self) -> bytes:
        """The labelling interface as XML."""
        view = ElementTree.Element("View")
        ElementTree.SubElement(view, "Video", name=VIDEO, value=f"${VIDEO}", frameRate=f"${FPS}")
        ElementTree.SubElement(view, "VideoRectangle", name=TOUCH, toName=VIDEO)
        regions = ElementTree.SubElement(view, "Labels", name="interaction_region", toName=VIDEO)
        for word in self.regions or {ANY_REGION: None}:
            ElementTree.SubElement(regions, "Label", value=word)
        choices = {"interaction_type": list(self.types), "verdict": ["keep", "drop"]}
        for name, words in choices.items():
            if words:
                ElementTree.SubElement(view, "Header", value=name)
                group = ElementTree.SubElement(view, "Choices", name=name, toName=VIDEO, choice="single")
                for word in words:
                    ElementTree.SubElement(group, "Choice", value=word)
        ElementTree.SubElement(view, "Header", value="caption")
        ElementTree.SubElement(view, "TextArea", name="caption", toName=VIDEO, rows="3", editable="true")
        ElementTree.indent(view)
        return ElementTree.tostring(view, encoding="utf-8") + b"\n"


def _tasks(run: ExportedRun, clips: Mapping[str, str], labels: _Labels) -> Iterator[dict[str, Any]]:
    columns = scalar_columns(run.schema)
    version = f"{run.record['pipeline']} {run.record['run_id']}"
    for row in rows_of(run.tables(columns)):
        if (file := clips.get(row["sample_id"])) is None:
            continue
        data = {new_name(n, (VIDEO,)): v for n, v in row.items() if _is_told(v)}
        data |= {VIDEO: f"{URL}{quote(file)}", FPS: data.get(FPS) or DEFAULT_FPS}
        yield {
            "data": data,
            "predictions": [{"model_version": version, "result": list(_results(data, labels))}],
        }


def _is_told(value: Any) -> bool:
    return value is not None and not (isinstance(value, float) and not math.isfinite(value))


def _results(data: Mapping[str, Any], labels: _Labels) -> Iterator[dict[str, Any]]:
    """What the run found on a clip."""

    def of(name: str, kind: str, value: Mapping[str, Any]) -> dict[str, Any]:
        return {"id": name, "from_name": name, "to_name": VIDEO, "type": kind, "value": dict(value)}

    x, y = data.get("interaction_x"), data.get("interaction_y")
    if x is not None and y is not None:
        region = data.get("interaction_region") or ANY_REGION
        labels.regions[region] = None
        frames = data.get("num_frames") or 1
        seen = {"frame": 1, "time": 0.0, "enabled": False, "rotation": 0, "width": BOX, "height": BOX}
        seen |= {"x": _side(x), "y": _side(y)}
        about = {"framesCount": frames, "duration": frames / data[FPS], "labels": [region]}
        yield of(TOUCH, "videorectangle", {"sequence": [seen], **about})
    if touch := data.get("interaction_type"):
        labels.types[touch] = None
        yield of("interaction_type", "choices", {"choices": [touch]})
    if caption := data.get("caption"):
        yield of("caption", "textarea", {"text": [caption]})
    if (keep := data.get("keep")) is not None:
        yield of("verdict", "choices", {"choices": ["keep" if keep else "drop"]})


def _side(share: float) -> float:
    """Where the box around a point begins, %: inside the picture."""
    return min(max(100 * share - BOX / 2, 0.0), 100 - BOX)


def _in_files(tasks: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    some: list[dict[str, Any]] = []
    for task in tasks:
        some.append(task)
        if len(some) == TASKS_A_FILE:
            yield some
            some = []
    if some:
        yield some
