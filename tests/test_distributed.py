"""The main job in several real processes on one machine, over gloo."""

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


def launch(config, workdir, *arguments, umask=0o022):
    """A process with one device that starts the run of `config` elsewhere."""
    config = dataclasses.replace(config, workdir=str(workdir))
    return subprocess.Popen(
        [*kill_study.command(config), *arguments],
        env=os.environ | {"JAX_NUM_CPU_DEVICES": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        umask=umask,
    )


def launch_all(config, *workdirs, flags=()):
    """A process a folder; what another than the first writes is for its owner only."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    flags = (*flags, "--distributed", f"--coordinator_address={address}")
    flags += (f"--num_processes={len(workdirs)}",)
    return [
        launch(config, folder, *flags, f"--process_id={i}", umask=0o077 if i else 0o022)
        for i, folder in enumerate(workdirs)
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


@pytest.mark.long
def test_two_train_as_one(finished, run_path, tmp_path):
    """Also where one of them was lost on the way."""
    config, theirs = finished
    run = tmp_path / config.name
    lose_one(run, 1, launch_all(config, tmp_path, tmp_path, flags=SAVING))
    (said, _), (silent, _) = finish(*launch_all(config, tmp_path, tmp_path))
    assert "resuming at epoch" in said
    assert "epoch   2/2" in said and "epoch" not in silent  # one of them reports
    assert_alike(run, run_path)
    ours = load_results(run)
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


SAVING = ("--checkpoint_minutes=0",)


def lose_one(run, victim, all_of_them):
    """Kills one once there is a checkpoint; the others end, and it is a good one."""
    others = [process for process in all_of_them if process is not all_of_them[victim]]
    deadline = time.monotonic() + 200
    while not list(run.glob("checkpoints/step-*")):
        assert time.monotonic() < deadline and others[0].poll() is None
        time.sleep(0.1)
    all_of_them[victim].kill()
    all_of_them[victim].communicate()
    killed = time.monotonic()
    for process in others:
        _, error = process.communicate(timeout=100)
        assert time.monotonic() - killed < 60
        assert process.returncode != 0
        # jax' own heartbeat may be first where the peer was process 0
        assert "lost another one" in error or "another task died" in error, error
    for path in run.glob("checkpoints/step-*"):
        checkpoints.verify(path)


@pytest.mark.long
def test_two_go_on_where_the_first_of_three_is_lost(finished, tmp_path):
    config = dataclasses.replace(finished[0], batch_size=6)  # can be shared by three
    alone, together = tmp_path / "alone", tmp_path / "together"
    finish(launch(config, alone))
    run = together / config.name
    lose_one(run, 0, launch_all(config, *3 * [together], flags=SAVING))
    (said, _), *_ = finish(*launch_all(config, *2 * [together]))
    assert "resuming at epoch" in said
    assert_alike(run, alone / config.name)
    assert load_results(run)["environment"]["processes"] == 2
    assert_one_has_written(run)


def assert_one_has_written(run):
    """Nothing in a run is of a process of `launch_all` but the first."""
    written = [path for path in run.rglob("*") if not path.stat().st_mode & 0o004]
    assert not written and not kill_study.leftovers(run)


@pytest.mark.long
def test_what_is_wrong_ends_all_of_them(finished, run_copy, tmp_path):
    """Also what one of them alone sees: the others would wait for it."""
    config = dataclasses.replace(finished[0], run_name=run_copy.name)
    (run_copy / "results.json").unlink()  # as if it had not come to its end
    smaller, elsewhere = dataclasses.replace(config, latent_dim=16), tmp_path / "other"
    differ = ["belongs to a run with other settings", "another process cannot begin"]
    for settings, folders, messages in (
        (config, 3 * [tmp_path], 3 * ["--batch_size=8: must be divisible by the 3"]),
        (smaller, 2 * [tmp_path], differ),
        (config, [tmp_path, elsewhere], 2 * ["name a folder that all machines share"]),
    ):
        started = launch_all(settings, *folders)
        for process, message in zip(started, messages, strict=True):
            _, error = process.communicate(timeout=240)
            assert process.returncode == 2 and message in error, error
    assert not elsewhere.exists()


def test_processes_that_cannot_join(finished, tmp_path):
    process = launch(finished[0], tmp_path, "--distributed")
    _, error = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "--distributed: cannot join the other processes" in error
    assert len(error.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())
