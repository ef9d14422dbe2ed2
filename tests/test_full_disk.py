"""A full disk is one line, and nothing half-written stands under a final name."""

import contextlib
import dataclasses
import os
import resource
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from codec_models import TINY
from emnist_tools import write_archive
from jax.experimental.compilation_cache import compilation_cache
from test_bad_calls import NIST, assert_refused, call, process

from emnist_jax import codec, train


@contextlib.contextmanager
def full_disk(limit):
    """A disk that takes no file longer than `limit` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    ("limit", "message", "left"),
    [
        (500, "new/config.json", set()),
        (2_000_000, "checkpoints/step-00000010", {"config.json", "metrics.jsonl"}),
    ],
)
def test_training_on_a_full_disk(
    limit, message, left, finished, tmp_path, monkeypatch, capsys
):
    settings = dataclasses.replace(finished[0], workdir=str(tmp_path), run_name="new")
    arguments = [
        f"--{name}={value}"
        for name, value in dataclasses.asdict(settings).items()
        if value is not None
    ]
    with full_disk(limit):
        answer = call("launch", arguments, monkeypatch, capsys)
    assert_refused(answer, f"cannot write {tmp_path}/new/")
    assert message in answer[2] and "File too large" in answer[2]
    found = {p.name for p in (tmp_path / "new").rglob("*") if p.is_file()}
    assert found == left | {".lock"}


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        (1_000, "latents/test.npy"),
        (7_000, "figures/examples.npz"),
        (40_000, "figures/reconstructions.png"),
    ],
)
def test_evaluation_on_a_full_disk(limit, message, run_copy, monkeypatch, capsys):
    content = {p: p.read_bytes() for p in run_copy.rglob("*") if p.is_file()}
    with full_disk(limit):
        answer = call("evaluate", [f"--run={run_copy}"], monkeypatch, capsys)
    assert_refused(answer, f"cannot write {run_copy / message}")
    assert "File too large" in answer[2] or "requested" in answer[2]
    assert {p for p in run_copy.rglob("*") if p.is_file()} == content.keys()
    # What was written before is what it was.
    assert all(
        p.read_bytes() == content[p] for p in content if p.name != "results.json"
    )


def test_export_on_a_full_disk(run_path, images, tmp_path, monkeypatch, capsys):
    np.save(tmp_path / "images.npy", images)
    out = tmp_path / "out.npy"
    out.write_text("old")
    arguments = [f"--run={run_path}", f"--images={tmp_path / 'images.npy'}"]
    with full_disk(300):
        answer = call("latents", [*arguments, f"--out={out}"], monkeypatch, capsys)
    assert_refused(answer, f"cannot write {out}: File too large")
    assert out.read_text() == "old"


def test_a_small_tmpdir(tmp_path):
    """What the codec keeps for a while lies where its output does."""
    small = tmp_path / "small"
    small.mkdir()
    inside = 'mount -t tmpfs -o size=16k none "$TMPDIR" && exec "$@"'
    within = ["unshare", "-Urm", "sh", "-c", inside, "-"]
    environment = {**os.environ, "TMPDIR": str(small), "PYTHONPATH": os.getcwd()}
    try:
        subprocess.run([*within, "true"], env=environment, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no user may mount here")
    noise = np.random.default_rng(0).integers(0, 256, (30_000, 1, 2)).astype(np.uint8)
    np.save(tmp_path / "images.npy", noise)
    command = [*within, sys.executable, "-m", "emnist_jax.codec", "compress"]
    done = subprocess.run(
        [*command, "images.npy", "a.ejx", f"--model={TINY}"],
        cwd=tmp_path,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    content = (tmp_path / "a.ejx").read_bytes()
    assert len(content) > 50_000
    np.testing.assert_array_equal(codec.decompress(content, model=TINY), noise)


def test_preparation_on_a_full_disk(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_archive(tmp_path / "nist.zip", train=300)
    arguments = f"{NIST}nist.zip --data_dir={tmp_path / 'data'}".split()
    with full_disk(20_000):
        status, _, errors = call("launch", arguments, monkeypatch, capsys)
    note, error = errors.splitlines()
    assert status == 2 and note == "preparing emnist/balanced from nist.zip (once)"
    assert error.startswith(f"error: cannot write {tmp_path / 'data'}")
    assert "File too large" in error
    found = {p.name for p in (tmp_path / "data" / "emnist_jax").iterdir()}
    assert found == {".lock", "archives.json"}


def test_compilation_cache_on_a_full_disk(tmp_path):
    def compute():
        compilation_cache.reset_cache()
        return float(jax.jit(lambda x: x * 3.5 + 1)(2.0))

    names = ("compilation_cache_dir", "persistent_cache_min_compile_time_secs")
    before = {f"jax_{name}": getattr(jax.config, f"jax_{name}") for name in names}
    try:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_compilation_cache_dir", str(tmp_path / "cache"))
        train.use_compilation_cache()
        assert compute() == 8.0
        entries = [p for p in (tmp_path / "cache").iterdir() if "cache" in p.name]
        assert entries
        for path in entries:  # as it is left when the disk gets full
            path.write_bytes(path.read_bytes()[:100])
        assert compute() == 8.0
        shutil.rmtree(tmp_path / "cache")
        with full_disk(100):
            assert compute() == 8.0
        (tmp_path / "file").touch()
        jax.config.update("jax_compilation_cache_dir", str(tmp_path / "file" / "x"))
        assert compute() == 8.0
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()


def test_any_output_will_do(monkeypatch):
    """A full disk behind stdout is one line; names that it cannot print are shown."""
    code = (
        "from emnist_jax.cli import command; command.run_command(lambda: print('{}'))"
    )
    with open("/dev/full", "w") as full:
        done = process("-c", code.format("x"), stdout=full)
    message = "No space left on device; make room"
    assert_refused((done.returncode, "", done.stderr), message)
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    done = process("-c", code.format("\\u00e9"), stdout=subprocess.PIPE)
    assert (done.returncode, done.stdout, done.stderr) == (0, "\\xe9\n", "")
