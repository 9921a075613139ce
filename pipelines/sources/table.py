"""The data sets that `--input NAME:PATH` knows."""

from __future__ import annotations

from collections.abc import Mapping

from pipelines.sources import (
    ccv2,
    celebv_hq,
    celebv_text,
    hallo3,
    hdtf,
    huggingface,
    mead,
    openhumanvid,
    ravdess,
    talkvid,
    vico,
    webdataset,
)
from pipelines.sources.reader import Reader

READERS: Mapping[str, Reader] = {
    "openhumanvid": openhumanvid.READER,
    "hallo3": hallo3.READER,
    "ccv2": ccv2.READER,
    "celebv-text": celebv_text.READER,
    "celebv-hq": celebv_hq.READER,
    "mead": mead.READER,
    "hdtf": hdtf.READER,
    "ravdess": ravdess.READER,
    "vico": vico.READER,
    "talkvid": talkvid.READER,
    # The general ones come last: a folder is said to look like one of them only where it looks like no other.
    "huggingface": huggingface.READER,
    "webdataset": webdataset.READER,
}
