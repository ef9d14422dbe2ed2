"""The main job in two real processes on one machine, over gloo."""

import os
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from emnist_jax.storage import checkpoints
from emnist_jax.storage.results import load_results, read_metrics


def launch(workdir, devices, *arguments):
    return subprocess.Popen(
        [
            sys.executable,
            "launch.py",
            "--dataset=glyphs",
            "--train_examples=64",
            "--test_examples=21",
            "--batch_size=8",
            "--epochs=2",
            "--validation_fraction=0.1",
            "--checkpoint_minutes=0",
            f"--workdir={workdir}",
            "--run_name=run",
            *arguments,
        ],
        env=os.environ | {"JAX_NUM_CPU_DEVICES": str(devices)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def launch_two(workdir):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    flags = ("--distributed", f"--coordinator_address={address}", "--num_processes=2")
    return [launch(workdir, 1, *flags, f"--process_id={i}") for i in range(2)]


def finish(*processes):
    outputs = [process.communicate(timeout=240) for process in processes]
    for process, (_, error) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, error
    return outputs


def losses(workdir):
    lines = read_metrics(workdir / "run" / "metrics.jsonl", print)
    epochs = [x for x in lines if x["event"] == "epoch"]
    return [(x["epoch"], x["train_loss"], x["validation_loss"]) for x in epochs]


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("single")
    finish(launch(workdir, 2))
    return workdir


def test_two_processes_train_as_one(tmp_path, single):
    (said, _), (silent, _) = finish(*launch_two(tmp_path))
    assert "epoch   2/2" in said and "epoch" not in silent  # one of them reports
    np.testing.assert_allclose(losses(tmp_path), losses(single), rtol=1e-3)
    ours, theirs = load_results(tmp_path / "run"), load_results(single / "run")
    assert ours["environment"]["processes"] == 2
    assert ours["dataset"] == theirs["dataset"]
    for path in ("autoencoder", "decoder_only"):
        np.testing.assert_allclose(
            ours["test"][path]["mse"], theirs["test"][path]["mse"], rtol=1e-3
        )
    for name, count in (("train", 64), ("test", 21)):
        latents = np.load(tmp_path / "run" / "latents" / f"{name}.npy")
        assert latents.shape == (count, 32)
    expected = {
        p.relative_to(single) for p in single.rglob("*") if "step" not in str(p)
    }
    found = {p.relative_to(tmp_path) for p in tmp_path.rglob("*")}
    names = {p for p in expected if "ocdbt" not in str(p) and p.parent.name != "d"}
    assert names <= found


@pytest.mark.parametrize("victim", [0, 1])
def test_a_dead_peer_ends_the_others_and_the_run_resumes(tmp_path, single, victim):
    both = launch_two(tmp_path)
    folder = tmp_path / "run" / "checkpoints"
    deadline = time.monotonic() + 200
    while not list(folder.glob("step-*")):
        assert time.monotonic() < deadline and both[0].poll() is None
        time.sleep(0.1)
    both[victim].kill()
    both[victim].communicate()
    killed = time.monotonic()
    _, error = both[1 - victim].communicate(timeout=100)
    assert time.monotonic() - killed < 60
    assert both[1 - victim].returncode != 0
    # jax' own heartbeat may be first where the peer was process 0
    assert "lost another one" in error or "another task died" in error, error
    for path in folder.glob("step-*"):
        checkpoints.verify(path)
    if victim == 1:  # once is enough
        (said, _), _ = finish(*launch_two(tmp_path))
        assert "resuming at epoch" in said
        np.testing.assert_allclose(losses(tmp_path), losses(single), rtol=1e-3)


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--num_processes=2"], "--num_processes=2: needs --distributed"),
        (["--distributed", "--process_id=0"], "--process_id=0: needs --"),
        (
            [
                "--distributed",
                "--process_id=2",
                "--num_processes=2",
                "--coordinator_address=127.0.0.1:1",
            ],
            "--process_id=2: must be under --num_processes=2",
        ),
        (["--distributed"], "--distributed: cannot join the other processes"),
    ],
)
def test_flags_of_several_processes(tmp_path, flags, message):
    process = launch(tmp_path, 1, *flags)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 2
    assert message in error and len(error.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())
