"""Damaged files of a run: named, replaced by what is still good, or refused."""

import json
import random
import shutil
import sys

import jax
import numpy as np
import pytest
from small_training import SmallTraining
from test_checkpoints import damage
from test_loop import StopAfter

from emnist_jax import evaluate, latents, load_run, runs, train
from emnist_jax.cli.command import run_command
from emnist_jax.cli.errors import UserError
from emnist_jax.cli.interrupts import Interrupted
from emnist_jax.storage.checkpoints import DamagedCheckpoint, load
from emnist_jax.storage.results import load_results, read_metrics

SAVING = {"save_minutes": 0.0}  # after every step
STEP_2, STEP_8 = 2, 10  # how often is asked whether to stop before these have ended


def flip(path, seed=0, count=1):
    """Flips bits of a file."""
    content, rng = bytearray(path.read_bytes()), random.Random(seed)
    for _ in range(count):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def tear(path):
    """Cuts a file in two."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def error_of(main, capsys):
    """Runs a command's main; returns its lines on stderr, the last one an error."""
    with pytest.raises(SystemExit) as end:
        run_command(main)
    assert end.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("error: ")
    assert all(line.startswith("warning: ") for line in lines[:-1])
    return lines


def stopped(folder, after):
    with pytest.raises(Interrupted):
        SmallTraining(folder, interrupts=StopAfter(after), **SAVING).fit()
    return SmallTraining(folder, **SAVING)


# Checkpoints of a training run


def test_training_goes_on_from_the_checkpoint_before(tmp_path):
    straight, _ = SmallTraining(tmp_path / "a").fit()
    found = stopped(tmp_path / "b", STEP_8).checkpoints
    assert found.steps() == [5, 7, 8]  # the best and the latest two
    damage(found.path(7), "flip")
    damage(found.path(8), "truncate")
    made = stopped(tmp_path / "b", 2)
    assert made.checkpoints.steps() == [5, 6, 7]  # those that are good
    params, _ = made.fit()
    assert made.lines[0] == "resuming at epoch 2, step 2 of 5"
    jax.tree.map(np.testing.assert_array_equal, straight, params)
    logs = [(tmp_path / x / "metrics.jsonl").read_text() for x in "ab"]
    assert logs[0] == logs[1]


def test_changed_progress_is_noticed(tmp_path):
    made = stopped(tmp_path, STEP_2)
    metadata = made.checkpoints.path(2) / "metadata.json"
    content = metadata.read_text()
    metadata.write_text(content.replace('"step_in_epoch": 2', '"step_in_epoch": 3'))
    assert metadata.read_text() != content
    made.fit()
    assert "step-00000002 is damaged: metadata.json is altered" in made.lines[0]
    assert made.lines[1] == "resuming at epoch 1, step 1 of 5"


def test_a_lost_best_epoch_in_between(tmp_path):
    made = stopped(tmp_path, STEP_8)
    damage(made.checkpoints.path(5), "remove")
    _, progress = made.fit()
    assert [line.startswith("resuming") for line in made.lines[:3]] == [
        True,
        False,
        False,
    ]
    assert "step-00000005 is damaged" in made.lines[1]
    assert made.lines[2] == "the best epoch is lost: later ones replace it"
    assert progress.best_epoch == 2


def test_a_lost_best_epoch_at_the_end(tmp_path):
    made = SmallTraining(tmp_path, losses=[0.1, 0.2])
    last, progress = made.fit()
    assert (progress.best_epoch, progress.best_step) == (1, 5)
    damage(made.checkpoints.path(5), "flip")
    made = SmallTraining(tmp_path)
    params, progress = made.fit()
    assert made.lines[0] == "resuming at the end of training"
    assert "step-00000005 is damaged" in made.lines[1]
    assert made.lines[2] == "the best epoch is lost: the last one replaces it"
    assert len(made.lines) == 3
    assert (progress.best_epoch, progress.best_step) == (2, 10)
    assert progress.best_validation_loss == 0.2
    line = read_metrics(tmp_path / "metrics.jsonl", print)[-1]
    assert progress.best_train_loss == line["train_loss"]
    saved, _ = load(made.checkpoints.path(10))
    assert params["w"] == saved["params"]["w"] != last["w"]


def test_no_good_checkpoint(finished, run_copy, capsys):
    config, _ = finished
    (run_copy / "results.json").unlink()
    steps = sorted((run_copy / "checkpoints").iterdir())
    for step, kind in zip(steps, ["flip", "truncate", "remove"], strict=False):
        damage(step, kind)
    moved = config.__class__(**{**vars(config), "workdir": str(run_copy.parent)})
    lines = error_of(lambda: train.train_and_evaluate(moved), capsys)
    assert len(lines) == len(steps) + 1
    for line, step in zip(lines, reversed(steps), strict=False):
        assert f"{step.name} is damaged: " in line
    assert "no intact checkpoint" in lines[-1] and "delete that folder" in lines[-1]


# Everything else in a run's folder


def test_damaged_lines_of_the_log(tmp_path):
    SmallTraining(tmp_path / "a", batch_size=2).fit()
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    path = tmp_path / "b" / "metrics.jsonl"
    lines = path.read_text().splitlines()
    assert len(lines) == 4
    lines[1] = lines[1].replace("event", "evenu")
    path.write_text("\n".join(lines)[:-20])  # torn, as when the disk is full
    made = SmallTraining(tmp_path / "b", batch_size=2)
    made.fit()
    assert made.lines[1:] == [
        f"{path}: line {number} is damaged and left out" for number in (2, 4)
    ]
    kept = (tmp_path / "a" / "metrics.jsonl").read_text().splitlines()
    assert path.read_text().splitlines() == [kept[0], kept[2]]


def restarted(config, folder):
    settings = {**vars(config), "workdir": str(folder.parent)}
    return train.train_and_evaluate(config.__class__(**settings))


def test_damaged_results_are_made_anew(finished, run_copy, capsys):
    config, stored = finished
    for name in ("results.json", "latents/test.npy", "figures/examples.npz"):
        tear(run_copy / name)
    again = json.loads(json.dumps(restarted(config, run_copy)))
    said, warned = capsys.readouterr()
    assert warned.startswith("warning: results.json is damaged and will be written")
    assert warned.count("\n") == 1
    assert "resuming at the end of training" in said and "epoch " not in said
    assert again == load_results(run_copy)
    differing = {k for k in stored if again[k] != json.loads(json.dumps(stored[k]))}
    assert differing <= {"timing", "config"}
    assert np.load(run_copy / "latents" / "test.npy").shape == (30, 32)


def test_damaged_results_never_end_in_a_traceback(run_copy, capsys):
    path, found = run_copy / "results.json", []
    content = path.read_bytes()
    for seed in range(300):
        path.write_bytes(content)
        flip(path, seed, count=1 + seed % 5)
        found.append(train._finished(runs.Run(run_copy)))
    assert None in found and any(found)
    path.write_text('{"test": []}')
    assert train._finished(runs.Run(run_copy)) is None


@pytest.mark.parametrize(
    "content, message",
    [
        ('{"config": {"epo', "config.json is not valid JSON"),
        ("[1, 2]", "config.json holds list, not a JSON object"),
        ('{"config": 3, "data": {}}', "'config' is no JSON object"),
        ('{"config": {}}', "'data' is no JSON object"),
        ("", "config.json is not valid JSON"),
    ],
)
def test_damaged_config(finished, run_copy, capsys, content, message):
    config, _ = finished
    (run_copy / "config.json").write_text(content)
    (line,) = error_of(lambda: restarted(config, run_copy), capsys)
    assert message in line and "restore that file, or delete the folder" in line
    with pytest.raises(UserError, match=message.replace("[", r"\[")):
        load_run(run_copy).config  # noqa: B018
    assert (run_copy / "config.json").read_text() == content
    assert (run_copy / "results.json").exists()


@pytest.mark.parametrize(
    ("part", "kind"), [("encoder", "flip"), ("decoder", "torn manifest")]
)
def test_a_damaged_half(run_copy, images, monkeypatch, capsys, tmp_path, part, kind):
    damage(run_copy / part, kind)
    run = load_run(run_copy)
    with pytest.raises(DamagedCheckpoint, match=f"{part} is damaged: "):
        run.encode(images) if part == "encoder" else run.decode(np.zeros((1, 32)))
    before = (run_copy / "results.json").read_bytes()
    monkeypatch.setattr(sys, "argv", ["evaluate", f"--run={run_copy}"])
    (line,) = error_of(evaluate.main, capsys)
    assert f"{part} is damaged: " in line
    assert (run_copy / "results.json").read_bytes() == before
    np.save(tmp_path / "in.npy", images if part == "encoder" else np.zeros((1, 32)))
    monkeypatch.setattr(
        sys,
        "argv",
        ["latents", f"--run={run_copy}", f"--out={tmp_path}/out.npy"]
        + (
            [f"--images={tmp_path}/in.npy"]
            if part == "encoder"
            else [f"--latents={tmp_path}/in.npy", "--decode"]
        ),
    )
    (line,) = error_of(latents.main, capsys)
    assert f"{part} is damaged: " in line
    assert not (tmp_path / "out.npy").exists()


def test_a_torn_latent_file(run_copy, tmp_path):
    path = run_copy / "latents" / "test.npy"
    tear(path)
    with pytest.raises(UserError, match=f"{path} is not a NumPy .npy array: it is cut"):
        latents.convert(load_run(run_copy), path, tmp_path / "out.npy", decode=True)
    assert not (tmp_path / "out.npy").exists()
