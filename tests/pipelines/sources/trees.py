"""Small folders in the layouts of published data sets, with copies of one clip as their media."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.engine.settings import SourceSettings
from pipelines.engine.source import Listing
from pipelines.sources.listing import list_source

VIDEOS = frozenset({".mp4"})


class Builder:
    """Fills a folder.

    Args:
        root: the folder.
        clip: a wide clip, 320 x 240.
        square: a square one.
    """

    def __init__(self, root: Path, clip: Path, square: Path) -> None:
        self.root, self.clip, self.square = root, clip, square
        root.mkdir(parents=True, exist_ok=True)

    def media(self, *names: str, square: bool = False) -> None:
        """Copies of the clip."""
        for name in names:
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(self.square if square else self.clip, path)

    def text(self, name: str, text: str) -> None:
        """A file of text."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def json(self, name: str, value: Any) -> None:
        """A file of JSON."""
        self.text(name, json.dumps(value))

    def tar(self, name: str, members: Mapping[str, bytes]) -> None:
        """An archive."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, "w") as archive:
            for member, data in members.items():
                about = tarfile.TarInfo(member)
                about.size = len(data)
                archive.addfile(about, io.BytesIO(data))


def listed(
    name: str, root: Path | str, limit: int | None = None, suffixes: frozenset[str] = VIDEOS
) -> Listing:
    """The data set as a run without stages lists it."""
    return list_source(name, str(root), None, suffixes, frozenset(), SourceSettings(), limit, lambda n: None)


def hdtf(tree: Builder) -> None:
    """Two whole videos, one cut clip, one that is cut and not cropped, and clips that cannot be."""
    tree.text(
        "HDTF_dataset/RD_annotion_time.txt",
        "Radio11.mp4 00:00-00:01 00:01-00:02\nRadio12.mp4 00:00-00:01 00:01-00:02 00:02-00:03\n"
        "Radio15.mp4 01:02:03-01:02:05\n",
    )
    tree.text(
        "HDTF_dataset/RD_crop_wh.txt",
        "Radio11_0.mp4 240 360 120 360\nRadio11_1.mp4 600 480 0 480\nRadio12_0.mp4 1 2 3 4\n"
        "Radio12_1.mp4 240 360 120 360\nRadio15_0.mp4 0 720 0 720\n",
    )
    tree.text("HDTF_dataset/RD_resolution.txt", "Radio11.mp4 720\nRadio12.mp4 720\nRadio15.mp4 720\n")
    tree.text("HDTF_dataset/RD_video_url.txt", "Radio11 https://www.youtube.com/watch?v=XtySvTwIOfw\n")
    tree.text("HDTF_dataset/WRA_annotion_time.txt", "PeterKing.mp4 00:00-00:02 \nTerriSewell1.mp4 0-1\n")
    tree.text("HDTF_dataset/WRA_crop_wh.txt", "PeterKing_0.mp4 178 872 0 872\nTerriSewell1_0.mp4 1 2 3 2\n")
    tree.text("HDTF_dataset/WRA_resolution.txt", "PeterKing.mp4 720\nTerriSewell1.mp4 0\n")
    tree.media("Radio11.mp4", "raw/WRA_PeterKing.mp4", "TerriSewell1.mp4", "other.mp4")
    tree.media("clips/Radio12_0.mp4", square=True)
    tree.media("clips/RD_Radio12_001.mp4", "clips/Radio12_2.mp4")


def celebv_hq(tree: Builder) -> None:
    """The README's two clips, the second cut already, and one whose video is gone."""
    box = {"top": 0.0, "bottom": 0.75, "left": 0.25, "right": 1.0}
    feelings = [
        {"emotion": "neutral", "start_sec": 0, "end_sec": 0.28},
        {"emotion": "happy", "start_sec": 1.28, "end_sec": 3.28},
    ]
    attributes = {
        "appearance": [0, 1, 1],
        "action": [1, 0],
        "emotion": {"sep_flag": False, "labels": "neutral"},
    }
    second = {"appearance": [1, 0, 0], "action": [0, 0], "emotion": {"sep_flag": True, "labels": feelings}}
    clips = {
        "M2Ohb0FAaJU_1": {
            "ytb_id": "M2Ohb0FAaJU",
            "duration": {"start_sec": 0.5, "end_sec": 1.5},
            "bbox": box,
            "attributes": attributes,
        },
        "_0tf2n3rlJU_0": {
            "ytb_id": "_0tf2n3rlJU",
            "duration": {"start_sec": 52.72, "end_sec": 56.1},
            "bbox": box,
            "attributes": second,
        },
        "gone_0": {"ytb_id": "gone", "duration": {"start_sec": 1.0, "end_sec": 2.0}, "bbox": box},
    }
    names = {"appearance_mapping": ["Blurry", "Male", "Young"], "action_mapping": ["blow", "chew"]}
    tree.json("celebvhq_info.json", {"meta_info": names, "clips": clips})
    tree.media("downloaded_celebvhq/raw/M2Ohb0FAaJU.mp4")
    tree.media("downloaded_celebvhq/processed/_0tf2n3rlJU_0.mp4", square=True)


def celebv_text(tree: Builder) -> None:
    """A clip of a whole video with two texts, one that was cut, one measured on a larger video."""
    clips = {
        "0-5BrmyFsYM_0": {
            "ytb_id": "0-5BrmyFsYM",
            "duration": {"start_sec": 0.0, "end_sec": 1.5},
            "bbox": {"top": 0, "bottom": 180, "left": 80, "right": 321},
        },
        "00-30GQl0TM_7": {
            "ytb_id": "00-30GQl0TM",
            "duration": {"start_frame": 0.25, "end_frame": 1.25},
            "bbox": {"top": 0, "bottom": 1183, "left": 665, "right": 1956},
        },
        "cut_1": {
            "ytb_id": "cut",
            "duration": {"start_sec": 1, "end_sec": 2},
            "bbox": {"top": 0, "bottom": 1, "left": 0, "right": 1},
        },
    }
    tree.json("celebvtext_info.json", {"clips": clips})
    tree.media("raw/0-5BrmyFsYM.mp4", "raw/00-30GQl0TM.mp4")
    tree.media("processed/cut_1.mp4", square=True)
    tree.text("texts/action/0-5BrmyFsYM_0.txt", "He talks.\nHe speaks.\n")
    tree.text("texts/emotion/0-5BrmyFsYM_0.txt", "\nHe is happy all the time.\n")


def ccv2(tree: Builder) -> None:
    """Two videos, one of which is there, in a folder of its archive."""
    person = {
        "subject_id": "0818",
        "age": "34",
        "gender": "cis woman",
        "native_language": "portuguese",
        "monk_skin_tone": {"scale": "scale 5", "confidence": "high"},
        "fitzpatrick_skin_tone": {"type": "type iii", "confidence": "high"},
    }
    videos = [
        {"video_name": "0818_portuguese_nonscripted_1.mp4", **person},
        {
            "video_name": "0818_english (india)_scripted_2.mp4",
            "subject_id": "0819",
            "age": "prefer not to say",
        },
    ]
    tree.json("CCv2_annotations/CasualConversationsV2.json", videos)
    tree.media("CCv2_part_12/0818_portuguese_nonscripted_1.mp4")


def mead(tree: Builder) -> None:
    """Two actors, and a file that is none of theirs."""
    tree.media(
        "M003/video/front/angry/level_1/001.mp4",
        "W009/video/left_30/neutral/level_1/021.mp4",
        "W009/video/front/sad/level_3/002.mp4",
        "extra/001.mp4",
    )
    tree.text("M003/audio/angry/level_1/001.m4a", "x")


def ravdess(tree: Builder) -> None:
    """Speech and song of two actors, and sound alone."""
    tree.media(
        "Video_Speech_Actor_01/Actor_01/01-01-03-02-01-01-01.mp4",
        "Video_Speech_Actor_01/Actor_01/02-01-03-02-01-01-01.mp4",
        "Actor_12/01-02-06-01-02-02-12.mp4",
        "Actor_12/notes.mp4",
    )
    tree.text("Actor_12/03-01-06-01-02-02-12.wav", "x")


def vico(tree: Builder) -> None:
    """The challenge's form, its videos moved as its README says."""
    tree.text("train.csv", "video_id,uuid,speaker_id,listener_id\nv1,abc,7,9\n")
    tree.text("valid.csv", "video_id,uuid,speaker_id,listener_id\nv2,def,7,3\n")
    tree.media("videos/test/abc.speaker.mp4", "videos/test/abc.listener.mp4", "videos/def.speaker.mp4")
    tree.text("audios/abc.wav", "x")


def vico_earlier(tree: Builder) -> None:
    """The form that the authors' converter reads."""
    tree.text(
        "RLD_data.csv",
        "audio,listener,speaker,speaker_id,listener_id,data_split\nv_1_2,l1,s1,4,5,train\n",
    )
    tree.media("videos/l1.mp4", "videos/s1.mp4")
    tree.text("audios/v_1_2.wav", "x")


def talkvid(tree: Builder) -> None:
    """Two clips of the list, one of which was downloaded."""
    info = {
        "Person ID": "597",
        "Ethnicity": "White",
        "Age Group": "60+",
        "Gender": "Male",
        "Video Link": "https://www.youtube.com/watch?v=Tr6MMsoWAog",
        "Language": "English",
        "Video Category": "Personal Experience",
    }
    clip = {
        "id": "videovideoTr6MMsoWAog-scene1-scene1",
        "start-time": 0.1,
        "end-time": 5.141666666666667,
        "info": info,
        "description": "An older man in a suit.",
        "dover_scores": 8.9,
        "cotracker_ratio": 0.927,
    }
    tree.json("data/filtered_video_clips.json", [clip, clip | {"start-time": 7.0, "end-time": 9.5}])
    tree.media("clips_output/Tr6MMsoWAog/Tr6MMsoWAog_001_0.100_5.142.mp4")
    tree.text("clips_output/Tr6MMsoWAog/Tr6MMsoWAog_001_0.100_5.142.m4a", "x")


def openhumanvid(tree: Builder) -> None:
    """Two lists with the empty columns behind, three clips, two of them there."""
    header = (
        "clip_id,path,caption,luminance_min,luminance_max,blur_min,blur_max,aesthetic,technical_score,"
        "global_motion,,\n"
    )
    tree.text(
        "OpenHumanVid_part_001.csv",
        f'{header}f605,clips/part_001/f6/05/f605,"A man, speaking.",30,180.5,0.1,0.9,5.2,0.11,3.5,,\n'
        "f606,clips/part_001/f6/06/f606,,30,180.5,0.1,0.9,5.2,0.11,,,\n",
    )
    tree.text("OpenHumanVid_part_002.csv", f"{header}a001,clips/part_002/a0/01/a001,Two,1,2,3,4,5,6,7,,\n")
    tree.media("part_001/f6/05/f605.mp4", "part_002/a0/01/a001.mp4")


def hallo3(tree: Builder) -> None:
    """Three videos, one of them with a text."""
    tree.media("videos/0001.mp4", "videos/0002.mp4", "videos/more/0003.mp4")
    tree.text("caption/0001.txt", "A woman talks.\n")


def huggingface(tree: Builder) -> None:
    """Two splits with metadata in CSV and JSON lines, and a card."""
    tree.text("README.md", "---\nlicense: cc-by-4.0\ntags: [video]\n---\n# Card\n")
    tree.text("train/metadata.csv", "file_name,text,views\na.mp4,A cat.,7\nsub/b.mp4,,9\n")
    tree.text("test/metadata.jsonl", '{"file_name": "c.mp4", "text": "A dog.", "mood": "glad"}\n')
    tree.media("train/a.mp4", "train/sub/b.mp4", "test/c.mp4", "train/not_listed.mp4")


def webdataset(tree: Builder) -> None:
    """Two archives; captions as text, and in JSON."""
    clip = tree.clip.read_bytes()
    tree.tar(
        "shards/a-000000.tar",
        {
            "0001.mp4": clip,
            "0001.txt": b"A man.\n",
            "d/0002.mp4": clip,
            "d/0002.json": b'{"text": "Two.", "n": 1}',
        },
    )
    tree.tar("shards/a-000001.tar", {"0001.mp4": clip, "wh?t#1.mp4": clip, "a::b.mp4": clip})


BUILDERS = {
    "openhumanvid": openhumanvid,
    "hallo3": hallo3,
    "ccv2": ccv2,
    "celebv-text": celebv_text,
    "celebv-hq": celebv_hq,
    "mead": mead,
    "hdtf": hdtf,
    "ravdess": ravdess,
    "vico": vico,
    "talkvid": talkvid,
    "huggingface": huggingface,
    "webdataset": webdataset,
}
