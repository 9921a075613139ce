"""The plan of shards: every sample once, near the size, under a safe name."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.shards.plan import assign, estimated_bytes, make_keys

Named = st.tuples(st.sampled_from(["a", "b", "c"]), st.text(min_size=1, max_size=12))


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(Named, st.integers(1, 500), min_size=1, max_size=60), st.integers(1, 900), st.randoms()
)
def test_the_plan_has_every_sample_once(named: dict[tuple[str, str], int], size: int, random: Any) -> None:
    names, sizes = list(named), list(named.values())
    shards = assign(names, sizes, size)
    assert sorted(i for shard in shards for i in shard) == list(range(len(names)))
    totals = [sum(sizes[i] for i in shard) for shard in shards]
    assert all(len(shard) > 0 for shard in shards)
    assert all(total <= size or len(shard) == 1 for total, shard in zip(totals, shards, strict=True))
    following = [sizes[shard[0]] for shard in shards[1:]]
    assert all(t + n > size for t, n in zip(totals, following, strict=False))  # none was closed early
    # The order in which the manifests give them does not matter.
    order = list(range(len(names)))
    random.shuffle(order)
    again = assign([names[i] for i in order], [sizes[i] for i in order], size)
    assert [[names[i] for i in s] for s in shards] == [[names[order[i]] for i in s] for s in again]
    keys = make_keys(names)
    assert len({key.lower() for key in keys}) == len(names)
    assert all(key.isascii() and key.replace("-", "").replace("_", "").isalnum() for key in keys)
    assert all(key[0] not in "-_" and len(key) <= 93 for key in keys)


def test_keys_are_the_ids_where_they_can_be() -> None:
    keys = make_keys(
        [("a", "clip-1"), ("a", "x"), ("b", "x"), ("a", "../../etc/a.b"), ("a", "__"), ("b", "CLIP-2")]
    )
    assert keys[0] == "clip-1" and keys[5] == "CLIP-2"
    assert keys[1].startswith("x-") and keys[2].startswith("x-") and keys[1] != keys[2]
    assert keys[3].startswith("etc_a_b-") and keys[4].startswith("sample-")


def test_the_size_of_a_sample_is_foreseen() -> None:
    row = {
        "media_uri": "a.mp4", "source_uri": "a.mp4", "start_s": None, "end_s": None, "source_size": 10**6,
        "width": 100, "height": 100, "num_frames": 250, "fps": 25.0, "has_audio": True,
        "video_codec": "h264", "pixel_format": "yuv420p", "mirrored": False, "rotation": 0,
        "variable_frame_rate": False,
    }  # fmt: skip
    assert estimated_bytes(row) == 12_288 + 10**6 + 10 * 32_000
    part = row | {"start_s": 2.0}
    assert estimated_bytes(part) == 12_288 + 250 * 100 * 100 * 0.1 / 8 + 320_000
    for shown in ({"mirrored": True}, {"rotation": 90}):  # encoded anew, as a part is
        assert estimated_bytes(row | shown) == estimated_bytes(part)
    made = row | {"media_uri": "made.mp4", "bitrate_per_pixel": 0.2, "has_audio": False}
    assert estimated_bytes(made) == 12_288 + 250 * 100 * 100 * 0.2 / 8
    heard = row | {"attribute_embedder": "dinov2 x", "audio_embedder": "wav2vec2(x, y)"}
    assert estimated_bytes(heard) - estimated_bytes(row) == 257 * 1024 * 2 + 10 * 50 * 768 * 2
