"""Bulk jobs on a real Ray cluster of two nodes, which lose workers, nodes and drivers.

Needs the extra [ray], which CI installs after the other tests.
"""

import importlib.util
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from emnist_jax.bulk import __main__ as bulk
from emnist_jax.bulk import engine
from emnist_jax.cli.errors import UserError

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        importlib.util.find_spec("ray") is None, reason="the extra [ray] is missing"
    ),
]
ROOT = pathlib.Path(__file__).parents[1]
RUN = ROOT / "tests" / "golden" / "run-0.1.0"
SHARDS, ROWS = 12, 200


@pytest.fixture(scope="module")
def shards(tmp_path_factory, images):
    """Files that take a while, and what one process makes of them."""
    folder = tmp_path_factory.mktemp("bulk")
    (folder / "shards").mkdir()
    generator = np.random.default_rng(0)
    for number in range(SHARDS):
        rows = generator.integers(0, len(images), ROWS + number)
        np.save(folder / "shards" / f"part-{number:02}.npy", images[rows])
    for command in COMMANDS:
        bulk.main(arguments(command, folder, folder / f"{command}-alone"))
    return folder


COMMANDS = {"encode": [f"--run={RUN}"], "compress": ["--model=fast"]}


def arguments(command, folder, out, *more):
    flags = [f"--images={folder}/shards/*.npy", f"--out={out}", *COMMANDS[command]]
    return [command, *flags, *more]


class Cluster:
    """The cluster of tests/workers/two_nodes.py."""

    def __init__(self, folder):
        self.environment = {
            **os.environ,
            "HOME": str(folder),  # Ray puts a token there
            "PYTHONPATH": str(ROOT),
            "RAY_raylet_start_wait_time_s": "120",  # on a busy machine
            "JAX_NUM_CPU_DEVICES": "1",
        }
        self._process = subprocess.Popen(
            [sys.executable, ROOT / "tests" / "workers" / "two_nodes.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=self.environment,
        )
        self.address = self._process.stdout.readline().strip()
        assert self.address

    def ask(self, what):
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()

    def end(self):
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()

    def start(self, command, folder, out):
        call = arguments(command, folder, out, f"--address={self.address}")
        return subprocess.Popen(
            [sys.executable, "-m", "emnist_jax.bulk", *call],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment,
        )


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    made = Cluster(tmp_path_factory.mktemp("home"))
    yield made
    made.end()


def wait_for(job, condition):
    """Waits while a job runs; what the condition gave."""
    while job.poll() is None:
        if found := condition():
            return found
        time.sleep(0.02)
    pytest.fail(f"the job was over first: {job.communicate()}")


def finished(out, rows):
    return lambda: len(list(out.glob("part-*"))) >= rows


def check(job, out, alone):
    """A job ends well, with the bytes of one process and nothing beside them."""
    stdout, stderr = job.communicate(timeout=600)
    assert job.returncode == 0, stderr
    found, expected = (
        {path.name: path.read_bytes() for path in folder.iterdir()}
        for folder in (out, alone)
    )
    assert found == expected  # a folder that is left would be an error
    assert len(found) == SHARDS + 1
    return stdout


def test_two_nodes_give_the_bytes_of_one_process(shards, cluster):
    out = shards / "encode"
    job = cluster.start("encode", shards, out)
    wait_for(job, lambda: cluster.ask("workers") == "1 1")
    said = check(job, out, shards / "encode-alone")
    assert f"{SHARDS} shards, " in said and f"{SHARDS} done now, 0 were there" in said
    again = check(cluster.start("encode", shards, out), out, shards / "encode-alone")
    assert f"0 done now, {SHARDS} were there" in again


def test_a_worker_is_killed(shards, cluster):
    out = shards / "worker"
    job = cluster.start("compress", shards, out)
    wait_for(job, finished(out, 2))
    wait_for(job, lambda: cluster.ask("kill worker") != "0")
    assert not (out / "index.json").exists()
    check(job, out, shards / "compress-alone")


def test_the_driver_is_stopped_and_killed(shards, cluster):
    out = shards / "driver"
    job = cluster.start("compress", shards, out)
    wait_for(job, finished(out, 1))
    job.send_signal(signal.SIGINT)
    _, stderr = job.communicate(timeout=60)
    assert job.returncode == 130 and stderr.endswith("interrupted\n"), stderr
    there = len(list(out.glob("part-*")))
    job = cluster.start("compress", shards, out)
    wait_for(job, finished(out, there + 1))
    job.send_signal(signal.SIGKILL)
    job.communicate()
    assert not (out / "index.json").exists()
    said = check(cluster.start("compress", shards, out), out, shards / "compress-alone")
    assert there < int(said.split(" were there")[0].split()[-1]) < SHARDS


def test_a_node_is_lost(shards, cluster):  # the last one: it does not come back
    out = shards / "node"
    job = cluster.start("compress", shards, out)
    wait_for(job, lambda: cluster.ask("workers") == "1 1" and finished(out, 2)())
    assert cluster.ask("kill node") == "killed"
    assert not (out / "index.json").exists()
    check(job, out, shards / "compress-alone")


def test_no_cluster(shards):  # `auto` would find that of these tests
    address = "--address=127.0.0.1:1"
    call = arguments("encode", shards, shards / "none", address)
    done = subprocess.run(
        [sys.executable, "-m", "emnist_jax.bulk", *call],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 2
    assert f"{address}: no Ray cluster (" in done.stderr.splitlines()[-1]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray's own
def test_a_cluster_that_fails(monkeypatch):
    import ray

    def fails(*arguments, **options):
        raise ray.exceptions.RayActorError()

    monkeypatch.setattr(ray, "init", lambda **options: None)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 1.0})
    monkeypatch.setattr(ray.data, "from_items", fails)
    with pytest.raises(UserError, match="^--address=auto: the cluster failed "):
        list(engine.on_ray([], "auto", 1))


def test_the_benchmark_runs(tmp_path, cluster):
    output = tmp_path / "bulk.json"
    flags = ["--shards=2", "--rows=20", "--repeats=1", f"--output={output}"]
    subprocess.run(
        [sys.executable, "-m", "experiments.benchmarks.bulk", *flags],
        check=True,
        cwd=ROOT,
        env=cluster.environment,
    )
    rows = json.loads(output.read_text())["rows"]
    assert [row["workers"] for row in rows] == [1, 2, 0]
    assert all(row["images_per_second"] > 0 for row in rows)
