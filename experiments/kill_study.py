"""Stops a training run at random moments, again and again: it must not matter.

  python -m experiments.kill_study --stops=120 --folder=/tmp/kill_study

For both presets and all three schedules, one run is left alone and one is stopped
at a random moment of a random phase, started again with the same command, stopped
again, and in the end left alone too. Both must end with the same bits. Takes about
20 minutes on two free cores. `--signal=SIGTERM` or `SIGINT` asks the run to stop
instead of killing it, and tells how long it takes to obey.
"""

import collections
import dataclasses
import hashlib
import itertools
import pathlib
import random
import signal
import subprocess
import sys
import time
from typing import Any

import jax
import numpy as np

from emnist_jax import checkpoints, files
from emnist_jax.config import Config, make_config, shaping_differences
from emnist_jax.errors import UserError, run_command
from emnist_jax.flags import Flag, parse_flags

# Each phase of a start, and what it leaves in the run's folder when it begins.
PHASES = {
    "start-up": None,
    "first step": ".lock",
    "epochs": "checkpoints/step-*/manifest.json",
    "saving": "checkpoints/.step-*",
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


def start(config: Config, **options: Any) -> subprocess.Popen:
    """Starts `launch.py` with a config's settings; `options` are those of Popen."""
    settings = dataclasses.asdict(config).items()
    flags = [f"--{name}={value}" for name, value in settings if value is not None]
    return subprocess.Popen(
        [sys.executable, "launch.py", *flags],
        cwd=pathlib.Path(__file__).parents[1],
        text=True,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
    )


def run_and_stop(
    config: Config, phase: str | None, delay: float = 0.0, number: int = signal.SIGKILL
) -> Stop:
    """Starts a run and stops it in a phase.

    Args:
      config: the run's settings.
      phase: in which of `PHASES`, or None to leave the run alone.
      delay: seconds to wait after the phase has begun.
      number: the signal to send.

    Returns:
      How it ended. Its phase is what was found after the end, which may be a
      later one than was asked for.
    """
    folder = pathlib.Path(config.workdir) / config.name
    since = time.time()
    with start(config) as process:
        while phase and process.poll() is None and not _begun(folder, phase, since):
            time.sleep(0.003)
        if phase:
            time.sleep(delay)
        found = _phase(folder, since) if process.poll() is None else None
        sent = time.monotonic()
        if phase and process.poll() is None:
            process.send_signal(number)
        stdout, stderr = process.communicate()
        seconds = time.monotonic() - sent
    stopped = process.returncode != 0
    return Stop(found if stopped else None, process.returncode, seconds, stdout, stderr)


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
        with np.load(path, allow_pickle=False) as arrays:
            for name, array in arrays.items():
                found[f"{path.name} {name}"] = _digest(array.tobytes())
    found["metrics"] = _digest((folder / "metrics.jsonl").read_bytes())
    return found


def leftovers(folder: pathlib.Path) -> list[str]:
    """Temporary files that nobody has removed."""
    return sorted(str(p.relative_to(folder)) for p in folder.rglob(".*.tmp-*"))


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
      stops: at least how many times to stop runs.
      number: the signal.
      seed: of phases and delays.

    Raises:
      UserError: a run ended with other bits, or did not go on.
    """
    rng = random.Random(seed)
    presets, schedules = ("robust", "published"), ("constant", "cosine", "plateau")
    kinds = list(itertools.product(presets, schedules))
    counts: collections.Counter[str] = collections.Counter()
    slowest, rounds = 0.0, 0
    for kind, (preset, schedule) in enumerate(kinds):
        config = make_config(
            dataset="glyphs",
            decoder=f"model0{kind % 4 + 1}",
            preset=preset,
            schedule=schedule,
            train_examples=64,
            test_examples=16,
            batch_size=8,
            epochs=3,
            checkpoint_minutes=0.0,
            workdir=str(folder),
            run_name=f"{preset}-{schedule}-alone",
        )
        _finish(config)
        expected = contents(folder / config.name)
        done = 0
        while done < -(-stops // len(kinds)):
            rounds += 1
            name = f"{preset}-{schedule}-{rounds}"
            stopped = dataclasses.replace(config, run_name=name)
            phase = None
            while phase != "figures":
                # Of ten stops in a row two lie in the last phases.
                phase = rng.choice(list(PHASES)[: 4 if rng.random() < 0.7 else None])
                stop = run_and_stop(stopped, phase, rng.uniform(0, 0.8), number)
                if stop.phase is None:
                    break
                _check(stop, number)
                counts[stop.phase] += 1
                done += 1
                slowest = max(slowest, stop.seconds)
            _finish(stopped)
            found = contents(folder / name) | {"leftovers": leftovers(folder / name)}
            found["results"]["name"] = config.name
            for key, value in (expected | {"leftovers": []}).items():
                if found[key] != value:
                    raise UserError(f"{folder / name}: {key} is {found[key]!r}")
            print(f"{name}: equal, {sum(counts.values())} stops", flush=True)
    for phase in PHASES:
        print(f"{phase:<12}{counts[phase]:>5}")
    print(f"{sum(counts.values())} stops in {rounds} runs, all equal; ", end="")
    print(f"at most {slowest:.1f} s from the signal to the end")


def _finish(config: Config) -> None:
    stop = run_and_stop(config, None)
    if stop.status:
        raise UserError(f"{config.name} ended with {stop.status}: {stop.stderr}")


def _check(stop: Stop, number: int) -> None:
    expected = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}[number]
    if stop.status != expected or "Traceback" in stop.stderr:
        raise UserError(f"stopped in {stop.phase}: {stop.status} {stop.stderr!r}")


def main() -> None:
    """Runs the command of the module's docstring."""
    flags = parse_flags(
        sys.argv,
        __doc__.strip(),
        Flag("folder", "a new folder for the runs", required=True),
        Flag("stops", "how many times to stop a run at least", int, 120),
        Flag("signal", "SIGKILL, SIGTERM or SIGINT", str, "SIGKILL"),
        Flag("seed", "of phases and delays", int, 0),
    )
    number = signal.Signals[flags.signal]
    study(pathlib.Path(flags.folder), flags.stops, number, flags.seed)


if __name__ == "__main__":
    run_command(main)
