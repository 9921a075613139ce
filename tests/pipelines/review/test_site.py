"""The page of a run over real HTTP: media, reviews, figures, and who is kept out."""

from __future__ import annotations

import http.client
import io
import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pandas as pd
import pytest
import requests
from PIL import Image

from manifests import reviews, storage, store
from media.reader import open_media
from pipelines.engine.lock import lock
from pipelines.review.clips import Clips
from pipelines.review.screening import screen_again
from pipelines.review.site import Site, clean_name
from tests.support.helpers import SCREEN, execute, make_files, toy_stages
from tests.support.object_store import new_folder, s3_server
from tests.support.review_runs import TOKEN, ids_of, served

original = Clips._copy
POLICY = "default-src 'none'; script-src 'sha256-abc='"
PAGE = f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
PAGE += "<!doctype html><title>Run</title><script>let a = '<b>';</script><p>Hello"


@pytest.fixture
def site(run: Path, tmp_path: Path) -> Iterator[str]:
    (run / "report.html").write_text(PAGE)
    with served(run, tmp_path / "copies") as address:
        yield address


def get(address: str, **options: Any) -> requests.Response:
    return requests.get(address, timeout=60, **options)


def post(address: str, body: Any, **options: Any) -> requests.Response:
    return requests.post(address, json=body, timeout=60, **options)


def raw(address: str, path: str, method: str = "GET", **headers: str) -> tuple[int, bytes]:
    """Ask for a path as it stands, which no client has put in order."""
    parts = urlsplit(address)
    assert parts.hostname is not None
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=30)
    connection.putrequest(method, path, skip_host="Host" in headers)
    for name, value in headers.items():
        connection.putheader(name.replace("_", "-"), value)
    connection.endheaders()
    answer = connection.getresponse()
    with closing(connection):
        return answer.status, answer.read()


# The page and its media.


def test_the_page_comes_with_what_it_may_do(site: str) -> None:
    answer = get(site)
    assert (answer.status_code, answer.text) == (200, PAGE)
    assert answer.headers["content-security-policy"] == f"{POLICY}; frame-ancestors 'none'"
    assert {
        name: answer.headers[name] for name in ("x-content-type-options", "referrer-policy", "cache-control")
    } == {
        **{"x-content-type-options": "nosniff", "referrer-policy": "no-referrer", "cache-control": "no-store"}
    }
    assert "server" not in answer.headers
    assert get(site.rstrip("/")).url == site


def test_a_page_without_a_policy_can_do_nothing(run: Path, site: str) -> None:
    (run / "report.html").write_text("<script>1</script>")
    assert get(site).headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"


def test_the_written_report_is_the_page(run: Path, tmp_path: Path) -> None:
    with served(run, tmp_path / "copies") as site:
        assert get(site).text == (run / "report.html").read_text()
        (run / "report.html").unlink()
        answer = get(site)
        assert (
            answer.status_code == 404 and f"`interavatar report {run}` writes it" in answer.json()["detail"]
        )


def test_a_clip_that_browsers_play_is_served_as_it_is_and_in_ranges(
    site: str, run: Path, media: Path
) -> None:
    whole = (media.parent / "clip.mp4").read_bytes()
    address = f"{site}clip/{ids_of(run)['clip.mp4']}"
    answer = get(address)
    assert (answer.status_code, answer.content, answer.headers["content-type"]) == (200, whole, "video/mp4")
    assert (
        answer.headers["accept-ranges"] == "bytes" and answer.headers["x-content-type-options"] == "nosniff"
    )
    size = len(whole)
    for asked, start, end in (
        ("0-99", 0, 100),
        ("100-", 100, size),
        ("-50", size - 50, size),
        (f"5-{size * 2}", 5, size),
    ):
        part = get(address, headers={"Range": f"bytes={asked}"})
        assert (part.status_code, part.content) == (206, whole[start:end])
        assert part.headers["content-range"] == f"bytes {start}-{end - 1}/{size}"
    late = get(address, headers={"Range": f"bytes={size}-"})
    assert late.status_code == 416 and late.headers["content-range"] == f"bytes */{size}"
    assert requests.head(address, timeout=30).headers["content-length"] == str(size)


def test_what_browsers_do_not_play_is_copied_once(site: str, run: Path, tmp_path: Path) -> None:
    ids = ids_of(run)
    for name, seconds in (("other.mkv", 2.0), ("range", 1.0)):
        answer = get(f"{site}clip/{ids[name]}")
        assert (answer.status_code, answer.headers["content-type"]) == (200, "video/mp4")
        with open_media(answer.content) as reader:
            assert reader.picture.codec_context.name == "h264" and reader.sound.codec_context.name == "aac"
            assert reader.header_seconds == pytest.approx(seconds, abs=0.1)
        assert get(f"{site}clip/{ids[name]}", headers={"Range": "bytes=7-9"}).content == answer.content[7:10]
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "copies").iterdir()}
    assert len(before) == 2
    get(f"{site}clip/{ids['range']}")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "copies").iterdir()} == before


def test_pictures_are_shown_too(site: str, run: Path, media: Path) -> None:
    ids = ids_of(run)
    png = get(f"{site}clip/{ids['picture.png']}")
    assert (
        png.headers["content-type"] == "image/png"
        and png.content == (media.parent / "picture.png").read_bytes()
    )
    jpeg = get(f"{site}clip/{ids['picture.tif']}")
    assert jpeg.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(jpeg.content)).size == (256, 256)


def test_several_who_ask_at_once_wait_for_one_copy(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    monkeypatch.setattr(Clips, "_copy", lambda self, *given: made.append(given) or original(self, *given))
    with served(run, tmp_path / "copies") as site:
        address, found = f"{site}clip/{ids_of(run)['other.mkv']}", []
        threads = [threading.Thread(target=lambda: found.append(get(address).content)) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(made) == 1 and len(found) == 6 and len(set(found)) == 1


def test_old_copies_make_room(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.review.clips.MOST_BYTES", 1)
    with served(run, tmp_path / "copies") as site:
        for name in ("other.mkv", "range", "other.mkv"):
            assert get(f"{site}clip/{ids_of(run)[name]}").status_code == 200
            assert len(list((tmp_path / "copies").iterdir())) == 1


def test_media_that_cannot_be_shown_say_why(site: str, run: Path) -> None:
    ids = ids_of(run)
    for name, why in (("text.mp4", "not a readable media file"), ("gone.mp4", "No such file")):
        answer = get(f"{site}clip/{ids[name]}")
        assert answer.status_code == 404 and why in answer.json()["detail"]
        assert "root:x" not in answer.text


def test_pictures_beside_the_page_are_served_by_their_exact_names(site: str, run: Path) -> None:
    (run / "report" / "below").mkdir(parents=True)
    for name in ("a.webp", "below/b.webp", "notes.txt"):
        (run / "report" / name).write_bytes(name.encode())
    answer = get(f"{site}report/a.webp")
    assert (answer.content, answer.headers["content-type"]) == (b"a.webp", "image/webp")
    (run / "report" / "new.webp").write_bytes(b"new")
    assert get(f"{site}report/new.webp").content == b"new"
    for name in (
        "notes.txt",
        "below/b.webp",
        "below",
        "nothing.webp",
        "A.WEBP",
        ".",
        "..",
        "*.webp",
        "made_by",
    ):
        assert raw(site, f"/{TOKEN}/report/{name}")[0] == 404, name


# Who is kept out.


def test_nothing_is_answered_without_the_token(site: str, run: Path) -> None:
    root = site.removesuffix(f"{TOKEN}/")
    clip = ids_of(run)["clip.mp4"]
    for wrong in (
        "",
        "/",
        f"{TOKEN}x/",
        f"{TOKEN[:-1]}/",
        f"{TOKEN.upper()}/",
        f"x/{TOKEN}/",
        "ünï/",
        "%00/",
        f"//{TOKEN}/",
    ):
        for path in ("", "reviews", f"clip/{clip}", "figures", "queue", "report/a.webp", "docs"):
            answer = get(f"{root}{wrong}{path}", allow_redirects=False)
            assert (answer.status_code, answer.text) == (404, "not found"), wrong + path
    body = {"sample_id": clip, "verdict": "keep"}
    assert post(f"{root}wrong/reviews", body).status_code == 404 and not reviews.files(run)


@pytest.mark.parametrize(
    "path",
    [
        *("../../../../etc/passwd", "..%2f..%2f..%2fetc%2fpasswd", "%2e%2e/%2e%2e/run.json", "/etc/passwd"),
        *("....//run.json", "..\\..\\run.json", "%00", "run.json", "%ff%fe", "file:///etc/passwd"),
    ],
)
def test_no_path_of_an_address_is_a_path_of_the_disk(site: str, run: Path, path: str) -> None:
    (run / "report").mkdir(exist_ok=True)
    for route in ("clip", "report"):
        status, said = raw(site, f"/{TOKEN}/{route}/{path}")
        assert status == 404 and b"run_id" not in said and b"root:" not in said
    assert raw(site, f"/{TOKEN}/{path}")[0] == 404


def test_only_names_of_this_machine_lead_here(site: str) -> None:
    port = urlsplit(site).port
    path = f"/{TOKEN}/reviews"
    for host in (
        f"127.0.0.1:{port}",
        "localhost",
        "localhost:99",
        "[::1]:99",
        "192.0.2.7",
        "reviews.example.org",
    ):
        assert raw(site, path, Host=host)[0] == 200, host
    for host in (
        "evil.example",
        "localhost.evil.example",
        f"127.0.0.1.evil.example:{port}",
        "",
        "[",
        "evil.example:127.0.0.1",
    ):
        assert raw(site, path, Host=host)[0] == 400, host


def test_other_sites_cannot_write(site: str, run: Path) -> None:
    body = {"sample_id": ids_of(run)["clip.mp4"], "verdict": "keep"}
    own = site.removesuffix(f"/{TOKEN}/")
    for headers in (
        *(
            {"Origin": origin}
            for origin in ("http://evil.example", "null", f"{own}0", own.replace("http", "https"), "")
        ),
        *({"Sec-Fetch-Site": site} for site in ("cross-site", "same-site")),
    ):
        assert post(f"{site}reviews", body, headers=headers).status_code == 403, headers
    plain = requests.post(
        f"{site}reviews", data=json.dumps(body), headers={"Content-Type": "text/plain"}, timeout=30
    )
    assert plain.status_code == 415 and not reviews.files(run)
    assert (
        post(f"{site}reviews", body, headers={"Origin": own, "Sec-Fetch-Site": "same-origin"}).status_code
        == 201
    )
    assert post(f"{site}reviews", body).status_code == 201  # a program
    for method in ("PUT", "DELETE", "PATCH"):
        assert requests.request(method, f"{site}reviews", timeout=30).status_code == 405


# Reviews.


def test_a_review_is_written_with_what_was_shown(site: str, run: Path) -> None:
    ids = ids_of(run)
    shown = {"screen": "tried", "screen_hash": "0" * 16, "keep": False, "drop_reasons": ["too_long"]}
    body = {
        "sample_id": ids["clip.mp4"],
        "verdict": "keep",
        "note": "a\nb",
        "reviewer": "  Bo\t\x1b[31m ",
        "shown": shown,
    }
    answer = post(f"{site}reviews", body)
    assert answer.status_code == 201 and answer.headers["cache-control"] == "no-store"
    assert {name: answer.json()[name] for name in ("reviewer", "verdict", "note")} == {
        **{"reviewer": "Bo [31m", "verdict": "keep", "note": "a\nb"}
    }
    post(f"{site}reviews?reviewer=Cy", {"sample_id": ids["range"], "verdict": "drop"})
    post(f"{site}reviews", {"sample_id": ids["range"], "verdict": "flag"})
    rows = pd.read_parquet(run / "reviews.parquet").sort_values("at").to_dict("records")
    said = [
        (
            row["reviewer"],
            row["verdict"],
            row["screen"],
            row["screen_hash"],
            row["keep"],
            [*row["drop_reasons"]],
        )
        for row in rows
    ]
    assert said == [
        ("Bo [31m", "keep", "tried", "0" * 16, False, ["too_long"]),
        *((who, what, "toy", SCREEN.hash, True, []) for who, what in (("Cy", "drop"), ("Ada", "flag"))),
    ]
    found = get(f"{site}reviews").json()
    assert found["reviewer"] == "Ada" and found["decided"] == {ids["clip.mp4"]: "keep", ids["range"]: "drop"}
    assert [(word["sample_id"], word["reviewer"], word["verdict"]) for word in found["words"]] == [
        *((ids["clip.mp4"], "Bo [31m", "keep"), (ids["range"], "Cy", "drop"), (ids["range"], "Ada", "flag"))
    ]
    assert [word["at"] for word in found["words"]] == [row["at"].isoformat() for row in rows]
    post(f"{site}reviews?reviewer=Cy", {"sample_id": ids["range"], "verdict": "clear"})
    assert get(f"{site}reviews").json()["decided"] == {ids["clip.mp4"]: "keep"}
    screen_again(run, SCREEN)
    verdicts = store.read(run / "manifest", ["sample_id", "review"]).to_pylist()
    assert [row["sample_id"] for row in verdicts if row["review"] == "keep"] == [ids["clip.mp4"]]


@pytest.mark.parametrize(
    ("change", "status", "why"),
    [
        ({"verdict": "maybe"}, 422, "review: verdict: Input should be"),
        ({"verdict": None}, 422, "review: verdict"),
        ({"sample_id": "no"}, 404, "the manifest has no such sample"),
        ({"sample_id": "../run.json"}, 404, "the manifest has no such sample"),
        ({"sample_id": 7}, 422, "review: sample_id"),
        ({"note": "x" * 2001}, 422, "review: note: String should have at most 2000"),
        ({"note": "\ud800"}, 422, "review: note"),
        ({"notes": "x"}, 422, "review: unknown key notes; did you mean note?"),
        ({"at": "2026-01-01"}, 422, "review: unknown key at"),
        ({"shown": {"screen": "s"}}, 422, "review: shown.screen_hash: Field required"),
        (
            {"shown": {"screen": "s", "screen_hash": "x", "keep": True, "drop_reasons": []}},
            422,
            "shown.screen_hash",
        ),
        ({"note": "x" * 300_000}, 413, "at most"),
    ],
)
def test_a_wrong_review_is_refused(
    site: str, run: Path, change: dict[str, Any], status: int, why: str
) -> None:
    answer = post(f"{site}reviews", {"sample_id": ids_of(run)["clip.mp4"], "verdict": "keep"} | change)
    assert answer.status_code == status and why in answer.json()["detail"] and not reviews.files(run)


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b"null", b"7", b"\xff", b"[" * 100_000])
def test_a_body_that_is_no_review_is_refused(site: str, run: Path, body: bytes) -> None:
    answer = requests.post(
        f"{site}reviews", data=body, headers={"Content-Type": "application/json"}, timeout=30
    )
    assert answer.status_code in (400, 422) and not reviews.files(run)


def test_two_reviewers_at_once_lose_no_review(site: str, run: Path, tmp_path: Path) -> None:
    """One of them at a second server of the same run."""
    sample, verdicts = ids_of(run)["clip.mp4"], ["keep", "drop", "flag", "clear"]
    answers: Counter[tuple[str, str, int]] = Counter()

    def review(name: str, at: str) -> None:
        with requests.Session() as session:
            for number in range(100):
                body = {
                    "sample_id": sample,
                    "verdict": verdicts[number % 4],
                    "note": str(number),
                    "reviewer": name,
                }
                answers[
                    name, body["note"], session.post(f"{at}reviews", json=body, timeout=60).status_code
                ] += 1

    with served(run, tmp_path / "more") as second:
        threads = [
            threading.Thread(target=review, args=given)
            for given in (("Bo", site), ("Cy", site), ("Di", second))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        words = [get(f"{at}reviews").json()["words"] for at in (site, second)]
    assert words[0] == words[1] == []  # the last word of each was to clear
    rows = pd.read_parquet(run / "reviews.parquet")
    found = Counter(zip(rows["reviewer"], rows["note"], strict=True))
    assert found == {(name, str(n)): 1 for name in ("Bo", "Cy", "Di") for n in range(100)}
    assert answers == {(name, note, 201): 1 for name, note in found}
    for name in ("Bo", "Cy", "Di"):
        mine = rows[rows["reviewer"] == name].sort_values("at")
        assert mine["note"].tolist() == [str(n) for n in range(100)]


def test_a_run_is_reviewed_while_it_goes_on(run: Path, site: str, media: Path) -> None:
    with lock(run):
        answer = post(f"{site}reviews", {"sample_id": ids_of(run)["clip.mp4"], "verdict": "drop"})
    assert answer.status_code == 201
    rows = pd.read_csv(media)
    rows = pd.concat([rows, pd.DataFrame({"uri": ["clip.mp4"], "start_s": [2.0], "end_s": [2.5]})])
    rows.to_csv(media.with_name("longer.csv"), index=False)
    assert get(f"{site}figures").json()["rows"] == 7
    execute(toy_stages(), media.with_name("longer.csv"), run, source="in")
    after = get(f"{site}figures").json()
    assert (after["reviewed"], after["rows"]) == (1, store.count(run / "manifest"))


# Figures and queue.


def test_figures_of_the_runs_screen_and_of_another(site: str, run: Path) -> None:
    ids = ids_of(run)
    for name, verdict in (("clip.mp4", "keep"), ("other.mkv", "drop"), ("range", "keep")):
        post(f"{site}reviews", {"sample_id": ids[name], "verdict": verdict})
    found = get(f"{site}figures").json()
    assert (found["screen"], found["screen_hash"], found["rows"], found["reviewed"]) == (
        "toy",
        SCREEN.hash,
        7,
        3,
    )
    assert found["precision"] == pytest.approx(
        {"hits": 2, "of": 3, "value": 2 / 3, "low": 0.2077, "high": 0.9385}, abs=1e-4
    )
    rules = [{"reason": "short", "column": "length", "min": 9}]
    tried = post(f"{site}figures", {"rules": rules}).json()
    assert (tried["screen"], tried["recall"]["hits"], tried["recall"]["of"]) == ("tried", 0, 2)
    assert tried["reasons"][0] == {
        **{"reason": "short", "dropped": 4, "alone": 4, "lost": pytest.approx(4 * 2 / 2 * 2 / 2)},
        "wanted": pytest.approx({"hits": 2, "of": 2, "value": 1.0, "low": 0.3424, "high": 1.0}, abs=1e-4),
    }
    for wrong, why in (
        ([{"reason": "short", "column": "nowhere", "min": 9}], "rule short reads nowhere, no such column"),
        ([{"reason": "short", "column": "length"}], "rule short has no bound"),
        ([{"reason": "short", "column": "length", "minimum": 9}], "unknown key rules.0.minimum"),
        ([{"reason": "a", "column": "source_uri", "min": 1}], "holds no numbers"),
    ):
        answer = post(f"{site}figures", {"rules": wrong})
        assert answer.status_code == 422 and why in answer.json()["detail"]
    assert post(f"{site}figures", {}).status_code == 422


def test_the_queue_leaves_out_what_was_reviewed(site: str, run: Path) -> None:
    ids = ids_of(run)
    rules = {"rules": [{"reason": "short", "column": "length", "min": 9}]}
    queued = [one["sample_id"] for one in post(f"{site}queue", rules).json()]
    assert set(queued) == {ids[name] for name in ("clip.mp4", "range", "text.mp4", "gone.mp4")}
    post(f"{site}reviews", {"sample_id": ids["clip.mp4"], "verdict": "keep"})
    post(f"{site}reviews", {"sample_id": ids["clip.mp4"], "verdict": "drop", "reviewer": "Bo"})
    post(f"{site}reviews", {"sample_id": ids["range"], "verdict": "keep"})
    for name, first in (("Ada", False), ("Bo", False), ("Cy", True)):
        found = post(f"{site}queue?reviewer={name}", rules).json()
        assert (found[0]["sample_id"] == ids["clip.mp4"]) == first
        assert ids["range"] not in [one["sample_id"] for one in found]
    assert found[0] == {
        **{"sample_id": ids["clip.mp4"], "cause": "reviewers", "reason": None, "distance": None},
        "why": "1 would keep it, 1 would drop it",
    }
    assert len(post(f"{site}queue?count=2", rules).json()) == 2
    assert isinstance(get(f"{site}queue").json(), list)
    for count in ("0", "501", "x", "-1", "1e2", "٣"):
        assert get(f"{site}queue?count={count}").status_code == 422


# Elsewhere.


def test_a_run_and_media_in_an_object_store(media: Path, tmp_path: Path) -> None:
    with s3_server():
        run = new_folder()
        for name in ("clip.mp4", "other.mkv"):
            storage.write_bytes(run.parent / "in" / name, (media.parent / name).read_bytes())
        execute(toy_stages(), str(run.parent / "in"), run)
        ids = ids_of(run)
        storage.write_bytes(run / "report" / "a.webp", b"a picture")
        with served(run, tmp_path / "copies") as site:
            whole = (media.parent / "clip.mp4").read_bytes()
            part = get(f"{site}clip/{ids['clip.mp4']}", headers={"Range": "bytes=10-19"})
            assert (part.status_code, part.content) == (206, whole[10:20])
            assert part.headers["content-type"] == "video/mp4"
            assert get(f"{site}clip/{ids['other.mkv']}").headers["content-type"] == "video/mp4"
            assert get(f"{site}report/a.webp").content == b"a picture"
            assert (
                post(f"{site}reviews", {"sample_id": ids["clip.mp4"], "verdict": "drop"}).status_code == 201
            )
            assert get(f"{site}figures").json()["precision"]["hits"] == 0
            assert get(f"{site}reviews").json()["decided"] == {ids["clip.mp4"]: "drop"}
        assert screen_again(run, SCREEN)[0]["kept"] == 1
        assert len(pd.read_parquet(str(run / "reviews.parquet"))) == 1


def test_media_that_a_run_made_are_found_where_the_run_was_moved_to(media: Path, tmp_path: Path) -> None:
    run, row = tmp_path / "moved", dict.fromkeys(("start_s", "end_s", "fps", "width", "height"))
    (run / "media" / "copies").mkdir(parents=True)
    made = run / "media" / "copies" / "made.mp4"
    made.write_bytes((media.parent / "clip.mp4").read_bytes())
    row |= {"source_uri": "/gone/a.mp4", "media_uri": "/gone/run/media/copies/made.mp4", "start_s": 5.0}
    (tmp_path / "copies").mkdir()
    assert Clips(run, tmp_path / "copies").shown(row).path == made


def test_names_of_reviewers_are_cleaned() -> None:
    assert clean_name("  Ada \n Lovelace\u202e ") == "Ada Lovelace" and clean_name("\x00\t") == ""
    assert clean_name("e\u0301") == "é" and len(clean_name("x" * 999)) == 200


def test_a_full_disk_is_no_review(run: Path, site: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage, "write_bytes", full)
    body = {"sample_id": ids_of(run)["clip.mp4"], "verdict": "keep"}
    answer = post(f"{site}reviews", body)
    assert answer.status_code == 503 and "No space left on device" in answer.json()["detail"]
    monkeypatch.undo()
    assert not reviews.files(run)
    assert post(f"{site}reviews", body).status_code == 201 and reviews.read(run).num_rows == 1


def test_a_site_without_a_manifest_says_so(tmp_path: Path) -> None:
    make_files(tmp_path / "in", 1)
    with served(tmp_path / "out", tmp_path / "copies") as site:
        assert get(site).status_code == 404
        answer = get(f"{site}clip/x")
        assert answer.status_code == 503 and "no manifest in" in answer.json()["detail"]
    assert Site(tmp_path, tmp_path, "Ada").app().routes
