"""Recipes of the corpus whose files are whole: containers, codecs, pixels, orientations, HDR."""

from __future__ import annotations

from collections.abc import Iterator

from tests.support.corpus.content import Content
from tests.support.corpus.files import Recipe, copied, piped
from tests.support.corpus.options import (
    AVI_MP3,
    EDITS,
    FRAGMENTS,
    FRONT,
    GUESSED,
    H264,
    VIDEO,
    YUV,
    known,
    recipe,
    x264,
)


def containers() -> Iterator[Recipe]:
    """Every container, with every kind of group of pictures that it takes; ranges of all."""
    groups = {
        "mp4": ("h264", "h264_b", "h264_open", "h264_long", "h264_long_b", "h264_refresh"),
        "mov": ("h264", "h264_b", "h264_long"),
        "mkv": ("h264", "h264_b", "h264_open", "h264_long", "h264_long_b", "h264_refresh"),
        "webm": ("vp8", "vp9", "vp9_alt"),
        "flv": ("h264", "h264_b", "h264_long", "flv1"),
        "ts": ("h264", "h264_b", "h264_open", "h264_long", "h264_long_b", "h264_refresh"),
        "m2ts": ("h264", "h264_b", "h264_long"),
        "mpg": ("mpeg2", "mpeg2_b", "mpeg1"),
        "avi": ("mpeg4", "mjpeg"),
        "wmv": ("wmv2", "msmpeg4"),
        "ogv": ("theora",),
        "3gp": ("h264", "mpeg4"),
    }
    for suffix, videos in groups.items():
        for video in videos:
            key = 75 if "long" in video or "refresh" in video or video == "vp9_alt" else 25
            yield recipe(f"{suffix}-{video}", "container", suffix, video, key=key)
            if video == videos[-1]:
                yield recipe(f"{suffix}-{video}-mute", "container", suffix, video, None, key=key)
    for video in ("h264", "h264_b", "h264_long"):
        key = 75 if "long" in video else 25
        yield recipe(f"mp4-fragments-{video}", "container", "mp4", video, mux=(*FRAGMENTS, *EDITS), key=key)
        yield recipe(f"mp4-front-{video}", "container", "mp4", video, mux=FRONT, key=key)
    yield recipe("mp4-fragments-plain", "container", "mp4", "h264", None, mux=FRAGMENTS, key=25)
    # Without edit lists the delay of B-frames cannot be told: the pictures begin 80 ms late. The sound has a
    # hole of as much after its first packet, and what follows is in sync.
    late = {"parts": (known(Content(), at=0.08),)}
    yield recipe("mp4-fragments-late", "container", "mp4", "h264_b", truth=late, mux=FRAGMENTS, key=25)
    short = (*FRAGMENTS, *EDITS, "-frag_duration", "200000")
    yield recipe("mp4-fragments-short", "container", "mp4", mux=short, key=25)
    for suffix in ("webm", "mkv"):
        yield recipe(f"{suffix}-live", "container", suffix, mux=("-live", "1"), key=25)
        yield recipe(f"{suffix}-piped", "container", suffix, how=piped, key=25)
    yield recipe("ts-piped", "container", "ts", "h264_b", how=piped, key=25)


def codecs() -> Iterator[Recipe]:
    """Codecs in containers that hold several."""
    pairs = {
        "mp4": ("hevc", "hevc_b", "vp9", "av1", "mpeg4_b", "mpeg2_b", "mjpeg"),
        "mov": ("hevc_b", "mjpeg", "prores", "png", "mpeg4", "mpeg2"),
        "mkv": (
            "hevc",
            "hevc_b",
            "vp8",
            "vp9",
            "av1",
            "mpeg2_b",
            "mpeg4_b",
            "mjpeg",
            "prores",
            "theora",
            "ffv1",
        ),
        "webm": ("av1",),
        "ts": ("hevc", "hevc_b", "mpeg2_b", "mpeg4"),
        "avi": ("mpeg4_b", "h264", "h264_b", "ffv1", "msmpeg4", "wmv2", "mpeg2"),
        "flv": ("hevc_b", "av1", "vp9"),
        "wmv": ("h264", "mpeg4"),
        "mpg": ("h264",),
    }
    for suffix, videos in pairs.items():
        for video in videos:
            guessed = suffix == "avi" and (video.endswith("_b") or video == "mpeg2")
            yield recipe(f"{suffix}-{video}", "codec", suffix, video, truth=GUESSED if guessed else None)
    for suffix, audios in {
        "mp4": ("mp3", "opus", "flac", "ac3"),
        "mov": ("pcm_s16le", "pcm_s24le", "pcm_f32le", "pcm_s16be", "mp3"),
        "mkv": ("mp3", "opus", "vorbis", "flac", "pcm_s16le", "pcm_f32le", "ac3", "mp2"),
        "webm": ("vorbis",),
        "ts": ("mp3", "mp2", "ac3", "opus"),
        "mpg": ("ac3", "mp3"),
        "avi": ("mp3", "ac3", "mp2"),
        "flv": ("mp3",),
        "wmv": ("mp3",),
    }.items():
        for audio in audios:
            truth = AVI_MP3 if (suffix, audio) == ("avi", "mp3") else None
            yield recipe(f"{suffix}-sound-{audio}", "codec", suffix, "", audio, truth=truth)
    yield recipe("3gp-amr", "codec", "3gp", "h264", "amr", Content(rate=8000))
    # Two pictures in one chunk and an empty one for each B-frame, as DivX wrote them.
    packed = (*VIDEO["mpeg4_b"], "-bsf:v", "mpeg4_unpack_bframes")
    yield recipe("avi-unpacked-b", "codec", "avi", packed, truth=GUESSED)


def pixels() -> Iterator[Recipe]:
    """Formats, ranges and matrices of pixels, odd sides, pixels that are not square, fields."""
    odd = Content(201, 113)
    high = ("-c:v", "libx264", "-preset", "ultrafast", "-x264-params", "keyint=25")
    for form in ("yuv422p", "yuv444p", "yuv420p10le", "yuv422p10le", "yuv444p10le", "nv12"):
        yield recipe(f"h264-{form}", "pixels", "mkv", ("-pix_fmt", form, *high))
    yield recipe("h264-gray", "pixels", "mp4", ("-pix_fmt", "gray", *high), truth={"corners": "grey"})
    full = ("-vf", "scale=out_range=full", "-pix_fmt", "yuvj420p", *high)
    yield recipe("h264-full", "pixels", "mp4", full)
    yield recipe("h264-full-ts", "pixels", "ts", full)
    for matrix, tag in (("bt709", "bt709"), ("bt601", "smpte170m"), ("bt2020", "bt2020nc")):
        colours = ("-vf", f"scale=out_color_matrix={matrix},setparams=colorspace={tag}", *YUV)
        yield recipe(f"h264-{matrix}", "pixels", "mp4", (*colours, *high))
        yield recipe(f"h264-{matrix}-ts", "pixels", "ts", (*colours, *high))
        yield recipe(f"ffv1-{matrix}", "pixels", "mkv", (*colours, "-c:v", "ffv1"))
    both = (
        "-vf",
        "scale=out_color_matrix=bt709:out_range=full,setparams=colorspace=bt709",
        "-pix_fmt",
        "yuvj420p",
    )
    yield recipe("h264-bt709-full", "pixels", "mp4", (*both, *high))
    for form in (
        "bgr0",
        "yuv420p",
        "yuv444p",
        "gray",
        "yuv422p10le",
        "yuva420p",
        "gbrp10le",
        "yuv411p",
        "yuv410p",
    ):
        grey = {"corners": "grey"} if form == "gray" else {}
        ffv1 = ("-pix_fmt", form, "-c:v", "ffv1")
        yield recipe(f"ffv1-{form}-odd", "pixels", "mkv", ffv1, "", odd, grey)
    yield recipe("png-odd", "pixels", "mov", "png", "", odd)
    yield recipe("h264-yuv444p-odd", "pixels", "mp4", ("-pix_fmt", "yuv444p", *high), "", odd)
    yield recipe("vp9-odd", "pixels", "webm", "vp9", "", odd)
    yield recipe("vp8-odd", "pixels", "webm", "vp8", "", odd)
    yield recipe("av1-odd", "pixels", "mp4", "av1", "", odd)
    yield recipe("mjpeg-odd", "pixels", "avi", "mjpeg", "", odd)
    yield recipe("theora-odd", "pixels", "ogv", "theora", "", odd)
    yield recipe("hevc-yuv444p-odd", "pixels", "mp4", ("-pix_fmt", "yuv444p", *VIDEO["hevc"][2:]), "", odd)
    yield recipe("vp9-yuv444p-odd", "pixels", "mkv", ("-pix_fmt", "yuv444p", *VIDEO["vp9"][2:]), "", odd)
    for video, suffix in (
        ("h264", "mp4"),
        ("h264", "mkv"),
        ("h264", "ts"),
        ("mpeg2", "mpg"),
        ("mpeg4", "avi"),
    ):
        for sar in ("2/1", "1/2", "16/11"):
            if video == "mpeg2" and sar != "16/11":
                continue  # it says the picture's shape in one of four words
            wide, high_ = (384, 108) if sar == "1/2" else (192, 108)
            ratio = int(sar.split("/")[0]) / int(sar.split("/")[1])
            if video == "mpeg2":
                ratio = 4 / 3 * high_ / wide
            aspect = ("-aspect", "4:3") if video == "mpeg2" else ("-vf", f"setsar={sar}")
            shown = {"size": (round(wide * ratio), high_)}
            name = f"{suffix}-pixels-{sar.replace('/', '-')}"
            yield recipe(name, "pixels", suffix, (*VIDEO[video], *aspect), "", Content(wide, high_), shown)
    yield recipe(
        "mpeg2-fields", "pixels", "mpg", (*VIDEO["mpeg2"], "-flags", "+ilme+ildct", "-vf", "setfield=tff")
    )
    yield recipe("mpeg2-fields-ts", "pixels", "ts", (*VIDEO["mpeg2_b"], "-flags", "+ilme+ildct"))
    for order in ("tff", "bff"):
        yield recipe(f"h264-fields-{order}", "pixels", "mkv", x264(f"keyint=25:{order}=1"))
    yield recipe("h264-fields-ts", "pixels", "ts", x264("keyint=25:tff=1"))


def orientations() -> Iterator[Recipe]:
    """All eight, for every container that can say them."""
    for suffix in ("mp4", "mov", "mkv"):
        for mirrored in (False, True):
            for turns in range(4):
                content = Content(mirrored=mirrored, turns=turns)
                options = ("-display_rotation", str(90 * turns), *(("-display_hflip",) if mirrored else ()))
                name = f"{suffix}-{90 * turns}{'-mirrored' if mirrored else ''}"
                yield recipe(name, "orientation", suffix, "", "", content, how=copied(options, (), "mp4"))
    for suffix, video in (("mov", "prores"), ("mp4", "hevc"), ("mkv", "vp9"), ("mp4", "h264_b")):
        content = Content(108, 192, mirrored=True, turns=1)
        how = copied(("-display_rotation", "90", "-display_hflip"), (), "mkv")
        yield recipe(f"{suffix}-{video}-portrait", "orientation", suffix, video, "", content, how=how)
    # In the stream's own words.
    for name, content in (("90", Content(turns=1)), ("mirrored", Content(mirrored=True))):
        said = f"display_orientation=insert:{'rotate=90' if content.turns else 'flip=horizontal'}"
        for suffix in ("ts", "mkv"):
            options = (*H264, "-bsf:v", f"h264_metadata={said}")
            yield recipe(f"{suffix}-sei-{name}", "orientation", suffix, options, "", content)


def hdr() -> Iterator[Recipe]:
    """PQ and HLG."""
    for curve in ("smpte2084", "arib-std-b67"):
        tags = f"setparams=color_primaries=bt2020:color_trc={curve}:colorspace=bt2020nc:range=tv"
        colours = (
            "-vf",
            f"scale=out_color_matrix=bt2020,format=yuv420p10le,{tags}",
            "-pix_fmt",
            "yuv420p10le",
        )
        eight = ("-vf", f"scale=out_color_matrix=bt2020,format=yuv420p,{tags}", *YUV)
        truth = {"hdr": True, "corners": "hue"}
        named = "pq" if curve == "smpte2084" else "hlg"
        for suffix, video, options in (
            ("mp4", "hevc", colours),
            ("mov", "hevc", colours),
            ("mkv", "hevc_b", colours),
            ("ts", "hevc", colours),
            ("mkv", "vp9", colours),
            ("mp4", "av1", colours),
            ("mp4", "h264", eight),
        ):
            yield recipe(
                f"{suffix}-{video}-{named}", "hdr", suffix, (*options, *VIDEO[video][2:]), "", None, truth
            )


FORMS = (containers, codecs, pixels, orientations, hdr)
