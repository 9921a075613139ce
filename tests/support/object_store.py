"""An S3 server on this machine (moto), and a toy run into it as a program of its own."""

from __future__ import annotations

import json
import logging
import os
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from manifests import storage
from manifests.storage import folder_of

BUCKET = "data"
SECRET = "do-not-write-this-down"


class S3Server:
    """Speaks S3 on this machine.

    Attributes:
        address: of it.
    """

    def __init__(self) -> None:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._port = 0
        self.start()
        self.address = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Answer, with all objects that there were when it stopped."""
        from moto.server import ThreadedMotoServer

        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=self._port, verbose=False)
        self._server.start()
        self._port = self._server.get_host_and_port()[1]

    def stop(self) -> None:
        """Refuse every connection."""
        self._server.stop()


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """A server with one empty bucket; the environment leads every S3 client to it."""
    import boto3
    import s3fs

    server = S3Server()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", server.address)
        patch.setenv("AWS_ACCESS_KEY_ID", "somebody")
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        s3fs.S3FileSystem.clear_instance_cache()  # a client keeps the address it was made with
        boto3.client("s3").create_bucket(Bucket=BUCKET)
        yield server
        s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


def new_folder() -> Path:
    """An empty folder in the bucket."""
    return folder_of(f"s3://{BUCKET}/{uuid.uuid4().hex[:8]}/run")


def make_older(path: Path, seconds: float) -> None:
    """Let an object have been written so long ago, by the server's clock."""
    from moto.s3.models import s3_backends

    bucket, _, key = storage.filesystem(path)[1].partition("/")
    (account,) = s3_backends.values()
    account["aws"].buckets[bucket].keys[key].last_modified -= timedelta(seconds=seconds)


if __name__ == "__main__":  # input, output, engine, settings as JSON, file for this process's number
    from tests.support.helpers import execute, toy_stages

    source, output, engine, settings, pid = sys.argv[1:6]
    Path(pid).write_text(str(os.getpid()))
    execute(toy_stages(**json.loads(settings)), source, folder_of(output), engine=engine, rows_per_part=2)
