"""What lies in the folder in which a page of the documentation is worked through."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from importlib import resources
from pathlib import Path
from typing import Any

from PIL import Image

from backends.store.model_catalogue import dump_catalogue, known_models
from manifests.storage import folder_of
from tests.support.clips import ffmpeg, make_clip
from tests.support.model_server import ModelServer
from tests.support.object_store import BUCKET
from tests.support.shard_runs import SENTENCE, finished_run

REVISION = "c0ffee" + "0" * 34
# So many videos are asked for first (`--limit 20` of README.md), and there are a few more.
LIMIT = 5
TINY_CLIPS = 4


def astronaut() -> Path:
    """A portrait that the laptop profile's packages carry."""
    return Path(str(resources.files("skimage.data") / "astronaut.png"))


def make_media(folder: Path) -> None:
    """What the reader has: videos, one of them broken, one long, one with a face; a portrait; a voice."""
    for name in ("videos", "portraits", "shared/videos"):
        (folder / name).mkdir(parents=True)
    videos = folder / "videos"
    (videos / "broken.mp4").write_bytes(b"no video")
    for number in range(TINY_CLIPS):
        make_clip(videos / f"clip{number:02}.mp4", seconds=1, size="160x120")
    make_clip(videos / "long.mp4", seconds=25, fps=5, size="160x120")
    move = "scale=340:340,crop=320:320:x=t*8:y=0,format=yuv420p"
    tone = ("-f", "lavfi", "-i", "sine=frequency=300:duration=2", "-c:a", "aac")
    ffmpeg(
        "-loop", "1", "-i", astronaut(), *tone, "-t", "2", "-r", "10", "-vf", move, videos / "a_person.mp4"
    )
    for name in ("a_person.mp4", "clip00.mp4"):
        (folder / "shared" / "videos" / name).write_bytes((videos / name).read_bytes())
    with Image.open(astronaut()) as picture:
        portrait = picture.convert("RGB")
    for name in ("portraits/astronaut.jpg", "portrait.jpg", "face.png"):
        portrait.save(folder / name, quality=95)
    (folder / "portraits" / "labels.csv").write_text("media,claim,value\nastronaut.jpg,depiction,photo\n")
    ffmpeg("-f", "lavfi", "-i", "sine=frequency=300:duration=1", "-ar", "16000", folder / "voice.wav")
    listed = [("a_person.mp4", "An astronaut smiles."), ("clip00.mp4", "A test picture.")]
    lines = [json.dumps({"uri": f"videos/{name}", "caption": caption}) for name, caption in listed]
    (folder / "clips.jsonl").write_text("".join(f"{line}\n" for line in lines))


def serve_catalogue(server: ModelServer) -> str:
    """`configs/models.yaml` with the same models and files, of some bytes each, which the server has.

    Hugging Face's repositories are the server's, other addresses lead to it; archives are archives.
    """
    served, archives, hubs = {}, dict[str, dict[str, bytes]](), dict[str, dict[str, bytes]]()
    for name, entry in known_models().items():
        files, hub = {}, hubs.setdefault(entry.source.huggingface or "", {})  # several models may share one
        for file, pin in entry.files.items():
            content = f"{name}/{file}".encode() * 100
            said = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
            url = entry.url_of(file) if entry.source.huggingface is None or pin.url else None
            if url is None:
                hub[pin.path or file] = content
            else:
                said["url"] = f"{server.url}/{hashlib.sha256(url.encode()).hexdigest()}"
                path = said["url"].removeprefix(server.url)
                if pin.member:
                    archives.setdefault(path, {})[pin.member] = content
                else:
                    server.files[path] = content
            files[file] = pin.model_copy(update=said)
        source = entry.source
        if source.huggingface is not None:
            source = source.model_copy(update={"revision": REVISION})
            server.add_repository(source.huggingface, REVISION, hub, set(hub))
        served[name] = entry.model_copy(update={"files": files, "source": source})
    for path, members in archives.items():
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            for member, content in members.items():
                archive.writestr(member, content)
        server.files[path] = packed.getvalue()
    return dump_catalogue(served)


def finished(folder: Path, media: Path, touched: bool = False) -> Path:
    """A finished run of a toy pipeline that kept two clips."""
    rows = [{"uri": str(media / "videos" / name), "caption": name} for name in ("a_person.mp4", "clip00.mp4")]
    for row in rows if touched else ():
        row |= {"interaction_prompt": SENTENCE, "interaction_x": 0.5, "interaction_y": 0.5}
    return finished_run(folder, rows)


def put_into_the_bucket(folder: Path, key: str) -> None:
    """A folder with all that is in it."""
    remote: Any = folder_of(f"s3://{BUCKET}/{key}")
    remote.fs.put(f"{folder}/", remote.path, recursive=True)
