"""Bulk jobs from and to a bucket of S3, of a server on this machine, over its protocol.

Needs moto's server and s3fs, which CI installs beside the extras.
"""

import importlib.util
import json
import os
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from test_bulk import call, content

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        not all(map(importlib.util.find_spec, ("moto", "flask", "s3fs"))),
        reason="needs pip install moto flask flask-cors s3fs",
    ),
]
SHARDS = 12


class Bucket:
    """A bucket called `bucket`: what is in it, and jobs that read and write it."""

    def __init__(self, address):
        import fsspec

        secret = {"key": "anybody", "secret": "anything"}
        options = {"endpoint_url": address, "use_listings_cache": False}
        self.system = fsspec.filesystem("s3", **secret, **options)
        self.system.mkdir("bucket")
        self.environment = os.environ | {
            "AWS_ENDPOINT_URL": address,
            "AWS_ACCESS_KEY_ID": secret["key"],
            "AWS_SECRET_ACCESS_KEY": secret["secret"],
        }

    def content(self, folder):
        """Bytes by names in a folder."""
        found = self.system.find(f"bucket/{folder}")
        return {x.partition(f"{folder}/")[2]: self.system.cat_file(x) for x in found}

    def write(self, name, held):
        self.system.pipe_file(f"bucket/{name}", held)

    def start(self, command, images, out, *flags):
        places = [f"--images=s3://bucket/{images}", f"--out=s3://bucket/{out}"]
        return subprocess.Popen(
            [sys.executable, "-m", "emnist_jax.bulk", command, *places, *flags],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self, *arguments):
        process = self.start(*arguments)
        said, error = process.communicate(timeout=250)
        assert process.returncode == 0, error
        return said, error


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = open(tmp_path_factory.mktemp("s3") / "log", "w")
    serve = "from moto.server import main; main()"
    call = [sys.executable, "-c", serve, f"--port={port}"]
    with log, subprocess.Popen(call, stdout=log, stderr=log) as server:
        deadline = time.monotonic() + 100
        while True:
            with socket.socket() as probe:
                if not probe.connect_ex(("127.0.0.1", port)):
                    break
            assert server.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        yield Bucket(f"http://127.0.0.1:{port}")
        server.terminate()


@pytest.fixture(scope="module")
def shards(tmp_path_factory, images, bucket):
    """Files here, and the same in the bucket."""
    folder, generator = tmp_path_factory.mktemp("shards"), np.random.default_rng(0)
    for number in range(SHARDS):
        path = folder / f"part-{number:02}.npy"
        np.save(path, images[generator.integers(0, len(images), 100 + number)])
        bucket.write(f"shards/{path.name}", path.read_bytes())
    return folder


@pytest.mark.parametrize("form", [(), ("--form=zarr",)], ids=["files", "arrays"])
def test_a_killed_job_ends_with_the_bytes_of_a_local_one(
    form, shards, bucket, tmp_path
):
    out, flags = "-".join(("out", *form)), ["--model=fast", *form]
    call("compress", shards, tmp_path / "out", *flags)
    expected = content(tmp_path / "out")
    index = json.loads(expected.pop("index.json"))
    third = max(name for name in expected if name.startswith("part-02"))
    job = bucket.start("compress", "shards/*.npy", out, *flags)
    while not bucket.system.exists(f"bucket/{out}/{third}"):
        assert job.poll() is None, job.communicate()
        time.sleep(0.02)
    job.kill()
    job.communicate()
    assert "index.json" not in bucket.content(out)
    said, _ = bucket.finish("compress", "shards/*.npy", out, *flags)
    there = int(said.partition(" were there")[0].split()[-1])
    assert 2 <= there < SHARDS
    held = bucket.content(out)
    found = json.loads(held.pop("index.json"))
    assert held == expected
    for one in index["shards"]:
        one["source"]["path"] = f"s3://bucket/shards/{one['shard'][:7]}.npy"
    assert found["shards"] == index["shards"]


def test_a_changed_source_and_a_damaged_output(shards, bucket):
    job = ("compress", "shards/part-0[0-3].npy", "mended", "--model=fast")
    bucket.finish(*job)
    good = bucket.content("mended")
    changed = (shards / "part-09.npy").read_bytes()
    bucket.write("shards/part-02.npy", changed)
    bucket.write("mended/part-01.ejx", good["part-01.ejx"][:-1])
    said, warned = bucket.finish(*job)
    assert "2 done now, 2 were there" in said
    assert "part-02.ejx: source changed" in warned
    assert "part-01.ejx: output damaged" in warned
    assert bucket.content("mended")["part-01.ejx"] == good["part-01.ejx"]
    bucket.finish("decompress", "mended/part-02.ejx", "again")
    assert bucket.content("again")["part-02.npy"] == changed
