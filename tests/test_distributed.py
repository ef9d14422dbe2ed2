"""The main job in two real processes on one machine, over gloo."""

import dataclasses
import os
import socket
import subprocess
import time

import numpy as np
import pytest
from tools import kill_study

from emnist_jax.storage import checkpoints
from emnist_jax.storage.results import load_results, read_metrics


def launch(config, workdir, *arguments):
    """A process with one device that starts the run of `config` elsewhere."""
    config = dataclasses.replace(config, workdir=str(workdir))
    return subprocess.Popen(
        [*kill_study.command(config), *arguments],
        env=os.environ | {"JAX_NUM_CPU_DEVICES": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def launch_two(config, workdir, *arguments):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    flags = ("--distributed", f"--coordinator_address={address}", "--num_processes=2")
    return [
        launch(config, workdir, *arguments, *flags, f"--process_id={i}")
        for i in range(2)
    ]


def finish(*processes):
    outputs = [process.communicate(timeout=240) for process in processes]
    for process, (_, error) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, error
    return outputs


def losses(run):
    epochs = [
        x for x in read_metrics(run / "metrics.jsonl", print) if x["event"] == "epoch"
    ]
    return [(x["epoch"], x["train_loss"], x["validation_loss"]) for x in epochs]


def test_two_train_as_one(finished, run_path, tmp_path):
    config, theirs = finished
    (said, _), (silent, _) = finish(*launch_two(config, tmp_path))
    assert "epoch   2/2" in said and "epoch" not in silent  # one of them reports
    assert_alike(tmp_path / config.name, run_path)
    ours = load_results(tmp_path / config.name)
    assert ours["environment"]["processes"] == 2
    assert ours["dataset"] == theirs["dataset"]
    for path in ("autoencoder", "decoder_only"):
        np.testing.assert_allclose(
            ours["test"][path]["mse"], theirs["test"][path]["mse"], rtol=1e-3
        )


def assert_alike(run, other):
    """Two runs have the same losses and the same files."""
    np.testing.assert_allclose(losses(run), losses(other), rtol=1e-3)
    for name in ("train", "test"):
        found, expected = (np.load(x / f"latents/{name}.npy") for x in (run, other))
        assert found.shape == expected.shape
    for folder in ("figures", "latents"):
        names = [{p.name for p in (x / folder).iterdir()} for x in (run, other)]
        assert names[0] == names[1]


@pytest.mark.long
@pytest.mark.parametrize("victim", [0, 1])
def test_a_dead_peer_ends_the_others(finished, run_path, tmp_path, victim):
    config, _ = finished
    run = tmp_path / config.name
    both = launch_two(config, tmp_path, "--checkpoint_minutes=0")
    deadline = time.monotonic() + 200
    while not list(run.glob("checkpoints/step-*")):
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
    for path in run.glob("checkpoints/step-*"):
        checkpoints.verify(path)
    (said, _), _ = finish(*launch_two(config, tmp_path))
    assert "resuming at epoch" in said
    assert_alike(run, run_path)


def test_processes_that_cannot_join(finished, tmp_path):
    process = launch(finished[0], tmp_path, "--distributed")
    _, error = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "--distributed: cannot join the other processes" in error
    assert len(error.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())
