"""A blind comparison of methods by people: a page of clips side by side, and the key that tells them apart.

InteractAvatar (§4.5, User Study) shows two clips of different methods and asks which is better; EAI-Avatar
(§4.1) asks for the naturalness of movement, the accuracy of lips and the whole, among others. A rater sees
pairs of clips of one test case, in an order and on sides that are drawn; the page and the files beside it say
nothing of methods. All clips are written anew in the same way, so that containers, metadata and codecs say
nothing either.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import combinations
from pathlib import Path
from typing import Final

import jinja2
from markupsafe import Markup

from manifests import storage
from manifests.text import one_line
from media.constant_rate import write_constant_rate
from media.files import VIDEO_SUFFIXES, MediaError
from media.reader import open_media
from media.temporary import temporary_folder
from pipelines.evaluation.study_key import Comparison, StudyError, StudyKey
from pipelines.review.page import policy

# Of EAI-Avatar's six questions (MN, LSA, OA), those that a clip of one speaker answers.
QUESTIONS: Final = (
    "Which person moves more naturally?",
    "Whose lips fit better to what is said?",
    "Which clip is better altogether?",
)
MOST_QUESTIONS: Final = 9  # each has a digit of the keyboard
LONGEST: Final = 300  # characters of a question
CRF: Final = 17  # of x264; its guide calls 17-18 visually lossless
PRESET: Final = "veryfast"
MAX_FPS, USUAL_FPS = 60.0, 25.0


@dataclass(frozen=True)
class Study:
    """A study that was written.

    left_out: what is not shown, in words, one line each.
    """

    key: StudyKey
    page: Path
    key_file: Path
    left_out: Sequence[str]


def write_study(
    methods: Sequence[str],
    output: Path,
    questions: Sequence[str] = QUESTIONS,
    seed: int = 0,
    most: int | None = None,
    told: Callable[[int], None] = lambda done: None,
) -> Study:
    """Write the page, its clips in `<page>_files/`, and the key `<page>_key.json`.

    Clips belong together whose files have one name without the ending. Those that one of the methods lacks,
    or that cannot be read, are left out. Of more than two methods each pair is compared.

    Args:
        methods: folders of clips, each FOLDER or NAME=FOLDER.
        output: the page, an .html; neither it nor its files and key may be there.
        questions: asked of each pair, at most nine.
        seed: of order, sides, names and choice of clips.
        most: so many clips are drawn; None: all.
        told: is told how many clips were written.

    Raises:
        StudyError: fewer than two methods, no clip of all of them, or a page that is there.
        OSError: a file cannot be read or written.
    """
    folders = _folders(methods)
    asked = _asked(questions)
    key_file, media = output.with_name(f"{output.stem}_key.json"), output.with_name(f"{output.stem}_files")
    _check(output, key_file, media)
    clips, left_out = _matched({name: _clips(folder) for name, folder in folders.items()})
    left_out += [said for name, folder in folders.items() if (said := _passed_over(name, folder))]
    draw = random.Random(seed)
    output.parent.mkdir(parents=True, exist_ok=True)
    with temporary_folder(f".{output.stem}-", output.parent) as making:
        made = making / "media"
        made.mkdir()
        shown, broken = _write_clips(clips, made, draw, most, told)
        left_out += broken
        if not shown:
            raise StudyError("no clip can be shown: " + "; ".join(left_out))
        files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(made.iterdir())}
        comparisons = _comparisons(shown, list(folders), draw)
        values = {
            "seed": seed,
            "questions": asked,
            "methods": {name: str(folder) for name, folder in folders.items()},
            "comparisons": [one.model_dump() for one in comparisons],
            "files": files,
        }
        digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode("utf-8", "replace")).hexdigest()
        key = StudyKey.model_validate({"study": digest[:16], **values})
        made.rename(media)
    storage.write_bytes(key_file, key.model_dump_json(indent=1).encode("utf-8", "replace"))
    storage.write_bytes(output, page(key, media.name).encode("utf-8", "replace"))
    return Study(key, output, key_file, left_out)


def page(key: StudyKey, folder: str) -> str:
    """The page as HTML.

    Args:
        key: of it the page gets the study's hash, the questions, and the names of the comparisons' files.
        folder: of the clips, beside the page.
    """
    parts = resources.files("pipelines.evaluation") / "page"
    frame, script, style = ((parts / f"study.{kind}").read_text() for kind in ("html", "js", "css"))
    facts = {
        "study": key.study,
        "folder": folder,
        "questions": list(key.questions),
        "comparisons": [{"id": c.id, "left": c.left_file, "right": c.right_file} for c in key.comparisons],
    }
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    return environment.from_string(frame).render(
        policy=Markup(policy(script, style)),
        questions=key.questions,
        facts=Markup(json.dumps(facts).replace("<", "\\u003c")),
        script=Markup(script),
        style=Markup(style),
    )


def _folders(methods: Sequence[str]) -> dict[str, Path]:
    """Names of methods and their folders, in the order given."""
    folders: dict[str, Path] = {}
    for given in methods:
        name, equals, path = given.partition("=")
        if not equals or "/" in name or Path(given).is_dir():
            name, path = Path(given).absolute().name, given
        if not name:
            raise StudyError(f"{given}: give the method a name, NAME={path}")
        if not Path(path).is_dir():
            raise StudyError(f"{path}: no such folder of clips")
        if name in folders:
            raise StudyError(f"two methods are called {name}: give each a name, NAME=FOLDER")
        folders[name] = Path(path)
    if len(folders) < 2:
        raise StudyError("a comparison needs two methods: give two folders of clips, NAME=FOLDER NAME=FOLDER")
    return folders


def _asked(questions: Sequence[str]) -> dict[str, str]:
    asked = [" ".join(question.split()) for question in questions]
    if not 1 <= len(asked) <= MOST_QUESTIONS or len(set(asked)) < len(asked):
        raise StudyError(f"{len(asked)} questions: from 1 to {MOST_QUESTIONS}, each another")
    for question in asked:
        if not 0 < len(question) <= LONGEST:
            raise StudyError(f"a question has from 1 to {LONGEST} characters: {question[:40]!r}")
    return {f"q{number}": question for number, question in enumerate(asked, 1)}


def _check(output: Path, *beside: Path) -> None:
    if output.suffix.lower() not in (".html", ".htm"):
        raise StudyError(f"{output}: the page is an .html")
    if there := [path for path in (output, *beside) if path.exists()]:
        raise StudyError(
            f"{', '.join(map(str, there))}: there already, and answers may belong to it; write another page, "
            "or delete it with its files and its key"
        )


def _clips(folder: Path) -> dict[str, Path]:
    """The videos of a folder by their names without the ending."""
    clips: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in VIDEO_SUFFIXES or path.name.startswith("."):
            continue
        if path.stem in clips:
            raise StudyError(
                f"{clips[path.stem]} and {path.name} have one name: keep one of them in {folder}"
            )
        clips[path.stem] = path
    return clips


def _passed_over(method: str, folder: Path) -> str:
    """What lies in a folder beside videos; "" for nothing."""
    others = (path for path in folder.iterdir() if path.suffix.lower() not in VIDEO_SUFFIXES)
    found = Counter("folders" if path.is_dir() else path.suffix.lower() or "no ending" for path in others)
    kinds = ", ".join(f"{count} {one_line(kind)}" for kind, count in sorted(found.items()))
    return f"{method}: no videos, passed over: {kinds}" if kinds else ""


def _matched(found: Mapping[str, Mapping[str, Path]]) -> tuple[dict[str, dict[str, Path]], list[str]]:
    """Clip -> method -> file of the clips that all methods have, and what is said of the others."""
    names = sorted(set().union(*found.values()))
    lacking = {method: [name for name in names if name not in clips] for method, clips in found.items()}
    left_out = [
        f"{method} lacks {len(missing)} clips that others have: {', '.join(map(one_line, missing))}"
        for method, missing in lacking.items()
        if missing
    ]
    shared = [name for name in names if all(name in clips for clips in found.values())]
    if not shared:
        said = "; ".join(left_out) or "there is no video in their folders"
        raise StudyError(f"the methods share no clip, by the names of their files: {said}")
    return {name: {method: clips[name] for method, clips in found.items()} for name in shared}, left_out


def _write_clips(
    clips: Mapping[str, Mapping[str, Path]],
    folder: Path,
    draw: random.Random,
    most: int | None,
    told: Callable[[int], None],
) -> tuple[dict[str, dict[str, str]], list[str]]:
    """Clip -> method -> name of the file that was written, and what is said of clips that cannot be read."""
    order = list(clips)
    draw.shuffle(order)
    shown: dict[str, dict[str, str]] = {}
    broken: list[str] = []
    for clip in order:
        if len(shown) == most:
            break
        files = list(clips[clip].items())
        draw.shuffle(files)
        written: dict[str, str] = {}
        for method, source in files:
            name = f"{draw.getrandbits(64):016x}.mp4"
            try:
                _write_clip(source, folder / name)
            except MediaError as error:
                broken.append(f"{one_line(str(source))}: {error}; the clip is left out")
                for other in written.values():
                    (folder / other).unlink()
                break
            written[method] = name
        else:
            shown[clip] = written
            told(len(shown))
    if most is not None and len(shown) < most:
        broken.append(f"{len(shown)} clips instead of {most}: there are no more")
    return shown, broken


def _write_clip(source: Path, target: Path) -> None:
    with open_media(source) as reader:
        rate = float(reader.rate or USUAL_FPS)
    write_constant_rate(source, target, min(rate, MAX_FPS), CRF, preset=PRESET)
    os.utime(target, (0, 0))  # when it was written would tell whose turn it was


def _comparisons(
    shown: Mapping[str, Mapping[str, str]], methods: Sequence[str], draw: random.Random
) -> list[Comparison]:
    """All pairs of methods of all clips in a drawn order; of each pair either stands left equally often."""
    comparisons = []
    for pair in combinations(methods, 2):
        turned = [number % 2 == 1 for number in range(len(shown))]
        draw.shuffle(turned)
        for (clip, files), is_turned in zip(shown.items(), turned, strict=True):
            left, right = pair[::-1] if is_turned else pair
            comparisons.append(
                Comparison(
                    id=f"{draw.getrandbits(48):012x}",
                    clip=clip,
                    left=left,
                    right=right,
                    left_file=files[left],
                    right_file=files[right],
                )
            )
    draw.shuffle(comparisons)
    return comparisons
