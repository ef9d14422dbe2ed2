"""Stops a training run at random moments, again and again: it must not matter.

  python -m tests.tools.kill_study --folder=kill_study

For each preset and schedule one run is left alone and one is stopped 20 times at a
random moment of a random phase, each time started again by the same command, and at
last left alone too: both must end with the same bits. Takes about 10 minutes on two
free cores. `--signal=SIGTERM` or `SIGINT` asks the run to stop instead of killing it,
and tells how long it takes to obey.
"""

import collections
import dataclasses
import hashlib
import itertools
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import jax

from emnist_jax.cli.arguments import Parser, count
from emnist_jax.cli.command import run_command
from emnist_jax.cli.errors import UserError
from emnist_jax.config import PRESETS, Config, make_config, shaping_differences
from emnist_jax.storage import checkpoints, files
from emnist_jax.storage.arrays import read_archive

# Each phase of a start, and what it leaves in the run's folder when it begins.
PHASES = {
    "start-up": None,
    "first step": ".lock",
    "epochs": "checkpoints/step-*/manifest.json",
    "saving": "checkpoints/.emnist_jax-*",
    "export": "encoder/manifest.json",
    "evaluation": "latents/test_indices.npy",
    "figures": "figures/examples.npz",
}


@dataclasses.dataclass(frozen=True)
class Stop:
    """How one start of the command ended."""

    phase: str | None  # in which it was stopped; None if it came to its end
    status: int  # exit status, less than 0 if it was killed
    seconds: float  # from the signal to the end
    stdout: str
    stderr: str


def command(config: Config) -> list[str]:
    """The call of `launch.py` with a config's settings."""
    settings = dataclasses.asdict(config).items()
    launch = pathlib.Path(__file__).parents[2] / "launch.py"
    flags = [f"--{name}={value}" for name, value in settings if value is not None]
    return [sys.executable, str(launch), *flags]


def run_and_stop(
    config: Config,
    phase: str | None = None,
    delay: float = 0.0,
    number: int = signal.SIGKILL,
) -> Stop:
    """Starts a run and stops it in a phase.

    Args:
      config: the run's settings.
      phase: in which of `PHASES`, or None to leave the run alone.
      delay: seconds to wait after the phase has begun.
      number: the signal to send.

    Returns:
      How it ended. Its phase is the one in which the signal was sent, perhaps a
      later one than was asked for.
    """
    folder = pathlib.Path(config.workdir) / config.name
    since = time.time()
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command(config), text=True, **pipes) as process:
        if phase and number != signal.SIGKILL:
            _wait_for_handler(process.pid, number)
        while phase and process.poll() is None and not _begun(folder, phase, since):
            time.sleep(0.003)
        if phase:
            time.sleep(delay)
        sent = time.monotonic()
        if phase and process.poll() is None:
            phase = _phase(folder, since)
            process.send_signal(number)
        stdout, stderr = process.communicate()
        seconds = time.monotonic() - sent
    stopped = process.returncode != 0
    return Stop(phase if stopped else None, process.returncode, seconds, stdout, stderr)


def contents(folder: pathlib.Path) -> dict[str, Any]:
    """All of a finished run that no interruption may change, by name.

    Raises:
      UserError: a file is missing or damaged.
    """
    record = files.read_json(folder / "results.json")
    del record["timing"]
    ours = dataclasses.asdict(make_config())
    record["config"] = shaping_differences(record["config"], ours)
    found = {"results": record}
    for part in ("encoder", "decoder"):
        tree, _ = checkpoints.load(folder / part)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            found[part + jax.tree_util.keystr(path)] = _digest(leaf.tobytes())
    for path in [*folder.glob("latents/*"), *folder.glob("figures/*.png")]:
        found[path.name] = _digest(path.read_bytes())
    for path in folder.glob("figures/*.npz"):
        for name, array in read_archive(path).items():
            found[f"{path.name} {name}"] = _digest(array.tobytes())
    found["metrics"] = _digest((folder / "metrics.jsonl").read_bytes())
    return found


def leftovers(folder: pathlib.Path) -> list[str]:
    """Temporary files that nobody has removed."""
    return sorted(str(p.relative_to(folder)) for p in folder.rglob(".emnist_jax-*"))


def _wait_for_handler(pid: int, number: int) -> None:
    """Waits while Python starts, which no program can answer a signal to."""
    status = pathlib.Path(f"/proc/{pid}/status")
    if not status.exists():  # not Linux
        time.sleep(1)
        return
    while True:
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        if int(lines.get("SigCgt", "0"), 16) >> (number - 1) & 1:
            return
        time.sleep(0.01)


def _begun(folder: pathlib.Path, phase: str, since: float) -> bool:
    pattern = PHASES[phase]
    if pattern is None:
        return True
    for path in folder.glob(pattern):
        try:
            if path.stat().st_mtime >= since:
                return True
        except FileNotFoundError:  # renamed meanwhile
            pass
    return False


def _phase(folder: pathlib.Path, since: float) -> str:
    return [phase for phase in PHASES if _begun(folder, phase, since)][-1]


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def study(folder: pathlib.Path, stops: int, number: int, seed: int) -> None:
    """Runs the study in `folder` and prints what happened.

    Args:
      folder: for the runs.
      stops: how many times to stop a run of each preset and schedule.
      number: the signal.
      seed: of phases and delays.

    Raises:
      UserError: a run did not stop as it should, or ended with other bits.
    """
    rng = random.Random(seed)
    kinds = itertools.product(PRESETS, ("constant", "cosine", "plateau"))
    ends: list[Stop] = []
    runs = 0
    for kind, (preset, schedule) in enumerate(kinds):
        config = make_config(
            dataset="glyphs",
            decoder=f"model0{kind % 4 + 1}",
            preset=preset,
            schedule=schedule,
            train_examples=64,
            test_examples=16,
            batch_size=8,
            epochs=4,
            checkpoint_minutes=0.0,
            workdir=str(folder),
            run_name=f"{preset}-{schedule}",
        )
        alone = dataclasses.replace(config, workdir=str(folder / "alone"))
        _finish(alone)
        # Later phases are of use only when training is over: they stand at the end.
        early, late = list(PHASES)[:4], ["start-up", *list(PHASES)[4:]]
        plan = [rng.choice(early if i < 0.6 * stops else late) for i in range(stops)]
        while plan:
            runs += 1
            while plan:
                delay = rng.uniform(0, 3 if plan[0] == "start-up" else 0.4)
                stop = run_and_stop(config, plan[0], delay, number)
                if stop.phase is None:  # it was not stopped in time
                    break
                _check(stop, number)
                ends.append(stop)
                del plan[0]
            _finish(config)
            _compare(folder / config.name, folder / "alone" / config.name)
            print(f"{config.name}: equal after {len(ends)} stops in all", flush=True)
            shutil.rmtree(folder / config.name)
    for phase, times in collections.Counter(stop.phase for stop in ends).items():
        print(f"{phase:<12}{times:>5}")
    slowest = max(stop.seconds for stop in ends)
    print(
        f"{len(ends)} stops in {runs} runs, all equal; at most {slowest:.1f} s to stop"
    )


def _compare(stopped: pathlib.Path, alone: pathlib.Path) -> None:
    found, expected = contents(stopped), contents(alone)
    for name in found.keys() | expected.keys():
        if found.get(name) != expected.get(name):
            raise UserError(f"{stopped}: {name} differs from that of {alone}")
    if left := leftovers(stopped):
        raise UserError(f"{stopped}: {', '.join(left)} is left")


def _finish(config: Config) -> None:
    stop = run_and_stop(config)
    if stop.status:
        raise UserError(f"{config.name} ended with {stop.status}: {stop.stderr}")


def _check(stop: Stop, number: int) -> None:
    expected = -number if number == signal.SIGKILL else 128 + number
    lines = stop.stderr.splitlines()
    if stop.status != expected or len(lines) != (number != signal.SIGKILL):
        raise UserError(f"stopped in {stop.phase}: {stop.status} {stop.stderr!r}")


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command of the module's docstring."""
    parser, kinds = Parser(__doc__), ("SIGKILL", "SIGTERM", "SIGINT")
    add = parser.add_argument
    add("--folder", required=True, help="a new folder for the runs")
    add("--stops", type=count, default=20, help="of each preset and schedule")
    add("--signal", choices=kinds, default="SIGKILL", help="how to stop")
    add("--seed", type=int, default=0, help="of phases and delays")
    flags = parser.parse_args(argv)
    number = signal.Signals[flags.signal]
    folder = pathlib.Path(flags.folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"--folder={folder}: holds something; name a new folder")
    study(folder, flags.stops, number, flags.seed)


if __name__ == "__main__":
    run_command(main)
