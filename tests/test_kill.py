"""A real process is killed in every phase; the same command ends with the same bits."""

import dataclasses
import pathlib
import shutil
import signal
import subprocess
import sys

import pytest
from small_training import SmallTraining
from tools import kill_study

from emnist_jax import runs
from emnist_jax.cli.errors import UserError
from emnist_jax.storage import files
from emnist_jax.training import loop

# What a run does in the later phases it does anew after each stop. More stops, at times
# by chance: python -m tests.tools.kill_study.
STOPS = [
    *(("start-up", "KILL"), ("first step", "INT"), ("saving", "KILL")),
    *(("epochs", "TERM"), ("export", "INT"), ("evaluation", "KILL")),
    ("figures", "TERM"),
]
SAYS = {
    "first step": "interrupted",  # in it or before it
    "epochs": "interrupted: saved at epoch ",
    "saving": "interrupted: saved at epoch ",
    "export": "interrupted: training is finished and saved in ",
    "evaluation": "interrupted: training is finished and saved in ",
    "figures": "interrupted: training is finished and saved in ",
}
SECONDS = 30  # 10 are promised, on a machine that has nothing else to do


@pytest.fixture
def config(finished, tmp_path):
    """The finished run's config in another folder, saving after every step."""
    config, _ = finished
    return dataclasses.replace(config, workdir=str(tmp_path), checkpoint_minutes=0.0)


@pytest.mark.long
def test_stopped_again_and_again(config, run_path, tmp_path):
    folder = tmp_path / run_path.name
    for phase, name in STOPS:
        number = signal.Signals[f"SIG{name}"]
        stop = kill_study.run_and_stop(config, phase, 0.05, number)
        if not stop.phase:  # the stops so far have left too few steps to stop in
            assert stop.status == 0, stop
            shutil.rmtree(folder)
            stop = kill_study.run_and_stop(config, phase, 0.05, number)
        assert stop.phase, stop
        if name == "KILL":
            assert stop.status == -number, stop
            continue
        assert stop.status == 128 + number and stop.seconds < SECONDS, stop
        assert stop.stderr.count("\n") == 1, stop
        assert stop.stderr.startswith(SAYS.get(phase, "interrupted\n")), stop
        if ":" in stop.stderr:
            assert f"{folder}/checkpoints; the same command goes on" in stop.stderr
        assert kill_study.leftovers(folder) == []
    last = kill_study.run_and_stop(config)
    assert last.status == 0, last.stderr
    assert kill_study.contents(folder) == kill_study.contents(run_path)
    assert kill_study.leftovers(folder) == []


def leftover(folder, name):
    """What a killed process left of writing `name`."""
    left = folder / f"{files._holder_prefix(name)}12345678"
    (left / "new").mkdir(parents=True)
    return left


def opened(config):
    path = pathlib.Path(config.workdir) / config.name
    return runs.open_for_training(path, dataclasses.asdict(config), {})


def test_a_second_process_is_refused(config, tmp_path):
    with opened(config) as run:
        with pytest.raises(UserError) as second, opened(config):
            pass
        held = sorted(path.name for path in run.path.iterdir())
    assert str(second.value) == (
        f"{run.path} is in use by another process; wait for it or choose "
        "another --run_name"
    )
    assert held == [".lock", "config.json"]
    left = leftover(run.path / "checkpoints", "step-00000003")
    with opened(config):  # the lock is free again
        assert not left.exists()


class Killed(BaseException):
    pass


def test_killed_between_the_log_and_the_checkpoint(tmp_path, monkeypatch):
    SmallTraining(tmp_path / "a").fit()
    real = loop._Training.end_epoch

    def killed(*args):
        real(*args)
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(loop._Training, "end_epoch", killed)
        SmallTraining(tmp_path / "b", save_minutes=0.0).fit()
    made = SmallTraining(tmp_path / "b")
    made.fit()
    assert made.lines[0] == "resuming at epoch 1, step 5 of 5"
    logs = [(tmp_path / x / "metrics.jsonl").read_text() for x in "ab"]
    assert logs[0] == logs[1] and logs[0].count("\n") == 2


WRITER = """
import sys, time
from emnist_jax.storage import files

write = {"file": files.write_atomically}.get(sys.argv[2], files.write_folder)
with write(sys.argv[1], **eval(sys.argv[3])) as temporary:
    if sys.argv[2] == "file":
        temporary.write_text("half")
    else:
        temporary.mkdir()
        (temporary / "file").write_text("new")
        if sys.argv[2] == "replacing":  # between the two renames of a replacement
            files._move_away(files.pathlib.Path(sys.argv[1]), temporary.parent.parent)
    print("there", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("kind", ["file", "folder", "replacing"])
def test_leftovers_of_a_killed_process(tmp_path, kind):
    target = tmp_path / "runs" / "a[1]*"
    if kind == "replacing":
        target.mkdir(parents=True)
        (target / "file").write_text("old")
    marks = str({"marks": ["file"]} if kind == "replacing" else {})
    command = [sys.executable, "-c", WRITER, str(target), kind, marks]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout.readline() == "there\n"
        files.remove_leftovers(tmp_path)
        files.remove_leftovers(target.parent, target.name)
        assert len(kill_study.leftovers(tmp_path)) == 1  # the writer lives
        writer.kill()
    files.remove_leftovers(target.parent, "another")
    assert len(kill_study.leftovers(tmp_path)) == 1
    files.remove_leftovers(tmp_path)
    assert kill_study.leftovers(tmp_path) == []
    found = [path.read_text() for path in tmp_path.rglob("file")]
    assert found == (["new"] if kind == "replacing" else [])


def test_writing_again_removes_leftovers(tmp_path):
    left = leftover(tmp_path, "a.json")
    files.write_json(tmp_path / "b.json", {})
    assert left.exists()
    files.write_json(tmp_path / "a.json", {})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.json", "b.json"]
