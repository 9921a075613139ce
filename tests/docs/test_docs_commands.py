"""Every command and every snippet of the documentation is run, in the order of its page."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from configs.reading import merged
from pipelines.requests import Request, load_profile, resolve
from tests.docs import (  # noqa: F401 - their checks
    checks_docs,
    checks_evaluation,
    checks_guides,
    checks_python,
    checks_readme,
    checks_test_sets,
)
from tests.docs.checks import CHECKS, At
from tests.docs.checks_sources import make_data_sets
from tests.docs.checks_test_sets import make_compared
from tests.docs.pages import Block, Reader, bare_environment, blocks, checkout, files_of, key_of, pages
from tests.docs.sandbox import LIMIT, finished, make_media, put_into_the_bucket, serve_catalogue
from tests.docs.table import ENDS, NOT_RUN
from tests.support.cluster_nodes import free_port, nodes
from tests.support.evaluation_clips import make_methods
from tests.support.misbehaving_server import MisbehavingServer
from tests.support.model_server import ModelServer
from tests.support.object_store import BUCKET, SECRET, s3_server
from tests.support.schema_answers import answer

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1800)]
HEAD = "ray start --head"
# The one run that starts a Ray of its own, as all would. The others stay in the command's process: actors for
# two clips take much longer to start than to work.
ON_RAY = "interavatar run talking_head --input /your/videos --output out --limit 20"
# What a reader replaces by something of their own, in this order; addresses of servers are added by the test.
OWN = {
    "/your/": "",
    "AWS_ACCESS_KEY_ID=KEY": "AWS_ACCESS_KEY_ID=somebody",
    "AWS_SECRET_ACCESS_KEY=SECRET": f"AWS_SECRET_ACCESS_KEY={SECRET}",
    "{000000..000041}": "{000000..000000}",
    # The same with less of it.
    "limit 20": f"limit {LIMIT}",
    "clips=40": "clips=2",
    "clips=8": "clips=4",
    "configs/train/tiny.yaml": "configs/train/tiny.yaml --set steps=4 --set samples.every=null",
    "interavatar sample": "interavatar sample --steps 4",
}


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("media")
    make_media(folder)
    return folder


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """Address of an S3 server."""
    with s3_server() as server:
        yield server.address


@pytest.fixture(scope="module")
def models() -> Iterator[tuple[ModelServer, str]]:
    """A server of small files in the place of the models' weights, and the catalogue that leads to it."""
    with ModelServer({}) as server:
        yield server, serve_catalogue(server)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with the token that the pages tell the reader to make."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def dashboard(home: Path) -> Iterator[str]:
    """Address to submit jobs to, of a Ray begun as README.md says: a token in the home, and its mode."""
    shown = [key_of(c) for b in blocks("README.md") if not b.language for c in b.commands()]
    token, mode = "ray get-auth-token --generate", "export RAY_AUTH_MODE=token"
    assert shown.index(mode) < shown.index(token) < shown.index(HEAD)
    first = Reader(home, {}, bare_environment(home, has_venv=True))
    assert first.type(mode).status == 0 and first.type(token).status == 0
    port = free_port()
    with nodes() as made:
        del made.environment["RAY_AUTH_TOKEN"]
        made.environment |= {"HOME": str(home), "RAY_worker_niceness": "0", "PYTHONFAULTHANDLER": "1"}
        made.start("head", 2, 0, f"--dashboard-port={port}", "--include-dashboard=true", *HEAD.split()[3:])
        yield f"http://127.0.0.1:{port}"


Prepare = Callable[[Reader, Path], None]


def _real_shards(reader: Reader, media: Path) -> None:
    for name in ("touched", "made", "runs/a", "run"):
        finished(reader.folder / name, media, touched=True)
    put_into_the_bucket(reader.folder / "run", "docs/shards.md/run")
    store = {"AWS_ACCESS_KEY_ID": "somebody", "AWS_SECRET_ACCESS_KEY": SECRET}
    reader.environment |= store | {"AWS_ENDPOINT_URL": reader.replaced["http://127.0.0.1:9000"]}


def _runs_to_train_on(reader: Reader, media: Path) -> None:
    for name in ("talking_head", "real_interactions", "synthetic_interactions"):
        finished(reader.folder / "out" / name, media, touched=name != "talking_head")


def _videos_in_the_bucket(reader: Reader, media: Path) -> None:
    put_into_the_bucket(media / "shared" / "videos", "docs/running.md/videos")


def _a_run(reader: Reader, media: Path) -> None:
    finished(reader.folder / "out", media)


def _a_run_of_own_videos(reader: Reader, media: Path) -> None:
    finished(reader.folder / "out", reader.folder)
    rows = ("videos/a_person.mp4,CC BY 4.0", "videos/clip00.mp4,CC BY-NC 4.0")
    (reader.folder / "terms.csv").write_text("\n".join(["uri,licence", *rows]))


def _made_clips(reader: Reader, media: Path) -> None:
    """Clips of three methods, the first the best, and real ones."""
    drawn = make_methods(reader.folder / "drawn")
    (reader.folder / "made").mkdir()
    for method, name in (("copy", "ours"), ("blurred", "theirs"), ("noisy", "others")):
        (drawn / method).rename(reader.folder / "made" / name)
    (drawn / "real").rename(reader.folder / "real")


def _data_sets_and_methods(reader: Reader, media: Path) -> None:
    make_data_sets(reader.folder)
    drawn = make_methods(reader.folder / "drawn")
    for method, name in (("copy", "ours"), ("noisy", "theirs"), ("real", "real")):
        (drawn / method).rename(reader.folder / name)


# What a page takes for granted, beside the reader's media.
PREPARE: Mapping[str, Prepare] = {
    "README.md": _data_sets_and_methods,
    "docs/consent.md": _a_run_of_own_videos,
    "docs/evaluation.md": _made_clips,
    "docs/export.md": _a_run,
    "docs/new_metric.md": _made_clips,
    "docs/running.md": _videos_in_the_bucket,
    "docs/shards.md": _real_shards,
    "docs/sources.md": lambda reader, media: make_data_sets(reader.folder),
    "docs/test_sets.md": lambda reader, media: make_compared(reader.folder),
    "docs/training.md": _runs_to_train_on,
}


@pytest.fixture(scope="module")
def worked_through(
    request: pytest.FixtureRequest,
    media: Path,
    home: Path,
    bucket: str,
    models: tuple[ModelServer, str],
    dashboard: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[dict[str, Future[None]]]:
    """The pages that are to be tested, two at a time: most of their commands use one core."""

    def work_through(page: str, folder: Path) -> None:
        checkout(folder)
        shutil.copytree(media, folder, dirs_exist_ok=True)
        (folder / "configs" / "models.yaml").write_text(models[1])
        with MisbehavingServer(answer, models=("tiny-vl",)) as server:
            mine = {
                "/shared/": f"{folder}/shared/",
                "s3://bucket/": f"s3://{BUCKET}/{page}/",
                "http://localhost:8000/v1": server.url,
                "http://127.0.0.1:9000": bucket,
                "http://127.0.0.1:8265": dashboard,
            }
            environment = bare_environment(home, has_venv=page != "README.md")
            environment |= {"PYTHONPATH": str(folder), "HF_ENDPOINT": models[0].url}
            reader = Reader(folder, OWN | mine, environment)
            PREPARE.get(page, lambda *_: None)(reader, media)
            for block in blocks(page):
                _work_through(block, At(reader, server))

    chosen = [item.callspec.params["page"] for item in request.session.items if _is_of_a_page(item)]
    with ThreadPoolExecutor(2) as pool:
        yield {
            page: pool.submit(work_through, page, tmp_path_factory.mktemp("page") / "interavatar")
            for page in chosen
        }


def _is_of_a_page(item: Any) -> bool:
    return getattr(item, "function", None) is test_a_page_can_be_pasted


@pytest.mark.parametrize("page", pages())
def test_a_page_can_be_pasted(page: str, worked_through: dict[str, Future[None]]) -> None:
    worked_through[page].result()


def _work_through(block: Block, at: At) -> None:
    at = replace(at, shown=block.text)
    check = CHECKS.get((block.page, f"{block.language} {block.number}"))
    if block.language == "python" and block.text not in files_of(block.page).values():
        names, values = at.reader.execute(block.text)
        at = replace(at, names=names, values=tuple(values))
    if block.language == "yaml" and check is None:
        _is_part_of_a_profile(block.text, at.folder)
    elif block.language:
        assert check is not None, block
        check(at)
    else:
        for command in block.commands():
            _type(block.page, command, at)


def _type(page: str, command: str, at: At) -> None:
    key = key_of(command)
    if key in NOT_RUN:
        NOT_RUN[key].instead(key)
        return
    if key != ON_RAY:
        command = re.sub(
            r"^interavatar (run|shards|export|evaluate(?! study| votes)) ", r"\g<0>--engine inline ", command
        )
    done = at.reader.type(command)
    expected = ENDS.get(key)
    assert done.status == (expected.status if expected else 0), f"{page}: {key}\n{done.said[-6000:]}"
    for text in expected.says if expected else ():
        assert text in done.said, f"{page}: {key}\n{done.said[-6000:]}"
    if (page, key) in CHECKS:
        CHECKS[page, key](replace(at, done=done))


def _is_part_of_a_profile(text: str, folder: Path) -> None:
    """In a copy of the laptop's profile: it is read, and every key and every stage in it is known."""
    values = yaml.safe_load(text)
    profile = folder / "profile.yaml"
    profile.write_text(
        yaml.safe_dump(merged(load_profile("laptop").model_dump(exclude_defaults=True), values))
    )
    resolve(Request("real_interactions", "", profile=str(profile)))
    said = load_profile(str(profile)).model_dump(exclude_defaults=True)
    assert all(said[key] | value == said[key] for key, value in values.items())


def test_the_tables_speak_of_what_is_there() -> None:
    shown = {(b.page, key_of(c)) for p in pages() for b in blocks(p) if not b.language for c in b.commands()}
    others = {(b.page, f"{b.language} {b.number}") for p in pages() for b in blocks(p) if b.language}
    commands = {key for _, key in shown}
    assert [key for key in (*NOT_RUN, *ENDS) if key not in commands] == []
    assert not set(NOT_RUN) & set(ENDS)
    assert [key for key in CHECKS if key not in shown | others] == []
    assert [key for key in others if key not in CHECKS and not key[1].startswith("yaml")] == []
    text = "".join((Path(__file__).parents[2] / page).read_text() for page in pages())
    assert [theirs for theirs in OWN if theirs not in text] == []
    assert all(entry.reason for entry in (*NOT_RUN.values(), *ENDS.values()))
    assert [key for key in commands if re.search(r"\.\.\.|…", key)] == []
