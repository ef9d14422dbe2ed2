"""Ctrl-C and SIGTERM: saved, said where, exit status 130 or 143, gone on from there."""

import dataclasses
import gc
import os
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from small_training import SmallTraining
from tools import kill_study
from tqdm import tqdm

from emnist_jax.cli import console, interrupts
from emnist_jax.cli.command import run_command
from emnist_jax.cli.interrupts import Interrupted, Interrupts, uninterrupted
from emnist_jax.training import loop

IN_A_TERMINAL = """
import os, pty, sys
sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))
"""


@pytest.fixture
def config(finished, tmp_path):
    """The finished run's config in another folder, saving after every step."""
    config, _ = finished
    return dataclasses.replace(config, workdir=str(tmp_path), checkpoint_minutes=0.0)


def screen(output):
    """Lines that a terminal shows in the end."""
    lines = []
    for line in output.split("\n"):
        shown = ""
        for part in line.split("\r"):
            shown = part + shown[len(part) :]
        lines.append(shown.rstrip())
    return lines


@pytest.mark.long  # test_kill.py interrupts processes without a terminal
def test_what_ctrl_c_leaves_on_a_terminal(config):
    command = kill_study.command(config)
    process = subprocess.Popen(
        [sys.executable, "-c", IN_A_TERMINAL, "sh", "-c"]
        + ['stty rows 40 cols 100 && exec "$0" "$@"', *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    output = b""
    while b"epoch 1/2:" not in output and process.poll() is None:
        output += os.read(process.stdout.fileno(), 1000)
    rest, _ = process.communicate(b"\x03", timeout=200)  # Ctrl-C
    lines = screen((output + rest).decode())
    assert process.returncode == 130, lines
    folder = next(i for i, line in enumerate(lines) if line.startswith("folder"))
    after = [line for line in lines[folder + 1 :] if line]
    assert len(after) == 1, after
    assert after[0].startswith("interrupted: saved at epoch 1, step ")


@pytest.mark.parametrize("place", ["validate", "end_epoch", "save"])
def test_a_signal_after_the_last_step(tmp_path, monkeypatch, place):
    straight, _ = SmallTraining(tmp_path / "a").fit()
    made = SmallTraining(tmp_path / "b", interrupts=Interrupts())
    owner = SmallTraining if place == "validate" else loop._Training
    real = getattr(owner, place)

    def interrupted(*args):
        monkeypatch.undo()
        signal.raise_signal(signal.SIGINT)
        return real(*args)

    monkeypatch.setattr(owner, place, interrupted)
    with pytest.raises(Interrupted) as stop:
        made.fit()
    assert f"saved at epoch 2, step 0 of 5, in {tmp_path}/b/checkpoints" in str(
        stop.value
    )
    assert stop.value.signal_number == signal.SIGINT
    again = SmallTraining(tmp_path / "b")
    params, _ = again.fit()
    assert again.lines[0] == "resuming at epoch 2, step 0 of 5"
    jax.tree.map(np.testing.assert_array_equal, straight, params)
    logs = [(tmp_path / x / "metrics.jsonl").read_text() for x in "ab"]
    assert logs[0] == logs[1]


def test_a_signal_before_the_first_step(tmp_path):
    signals = Interrupts()
    with signals.noted(), pytest.raises(Interrupted, match="^interrupted$"):
        signal.raise_signal(signal.SIGINT)
        SmallTraining(tmp_path).fit()
    assert not list(tmp_path.iterdir())


def test_a_signal_sent_twice_at_once_is_one():
    """As `timeout` sends it: to its child and to the child's group."""
    with Interrupts().noted():
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Interrupted):
            interrupts.check()
    cleaned = []
    with Interrupts().raised(), pytest.raises(Interrupted):
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            signal.raise_signal(signal.SIGTERM)
            cleaned.append(True)
    assert cleaned
    interrupts.check()  # the blocks have ended


def test_a_second_signal_later_does_not_wait():
    with Interrupts().noted(), pytest.raises(SystemExit) as end:
        signal.raise_signal(signal.SIGTERM)
        time.sleep(1.1)
        signal.raise_signal(signal.SIGTERM)
        raise AssertionError("went on")
    assert end.value.code == 143


def test_signals_wait_for_what_must_not_be_left():
    before = signal.getsignal(signal.SIGINT)
    done = []
    with Interrupts().raised(), pytest.raises(Interrupted) as stop, uninterrupted():
        signal.raise_signal(signal.SIGTERM)
        done.append(True)
    assert done and stop.value.signal_number == signal.SIGTERM
    assert signal.getsignal(signal.SIGINT) is before


def test_no_signal_is_lost_in_a_garbage_collection():
    """Python prints and forgets what is raised in callbacks such as JAX has there."""
    sent = []

    def callback(phase, info):
        if phase == "start" and not sent:
            sent.append(True)
            signal.raise_signal(signal.SIGTERM)

    gc.callbacks.append(callback)
    try:
        with Interrupts().raised(), pytest.raises(Interrupted):
            gc.collect()
            time.sleep(10)
    finally:
        gc.callbacks.remove(callback)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_every_command_ends_with_a_line(number, capsys):
    with pytest.raises(SystemExit) as end:
        run_command(lambda: signal.raise_signal(number))
    assert end.value.code == 128 + number
    assert capsys.readouterr().err == "interrupted\n"


def test_messages_stand_on_lines_of_their_own(capsys):
    with tqdm(total=3, file=sys.stderr, ncols=40, leave=False, desc="bar"):
        console.say("said")
        with pytest.raises(SystemExit):
            run_command(lambda: signal.raise_signal(signal.SIGINT))
    said, bar = capsys.readouterr()
    assert said == "said\n"
    assert screen(bar) == ["interrupted", ""]
    assert bar.count("bar:") == 3  # drawn again after each line
