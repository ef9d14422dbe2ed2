"""What the studies share: runs of `launch.py` in one folder, and paired statistics."""

import pathlib
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from emnist_jax import files, results
from emnist_jax.compose import select
from emnist_jax.config import make_config
from emnist_jax.data.load import load
from emnist_jax.data.selection import Selection
from emnist_jax.data.splits import Dataset
from emnist_jax.errors import UserError
from emnist_jax.flags import Flag, parse_flags
from emnist_jax.runs import Run

DATA_FLAGS = (
    Flag("dataset", "whose images", default="emnist/balanced"),
    Flag("data_dir", "where tfds keeps prepared data sets"),
    Flag("emnist_archive", "copy of NIST's gzip.zip"),
)
# Flags of a study that every one of its runs gets.
RUN_FLAGS = (
    Flag("epochs", "epochs of each run", int, 1),
    Flag("train_examples", "seeded subset of the training images", int),
    Flag("test_examples", "seeded subset of the test images", int),
    Flag("batch_size", "images a step", int, 128),
    *DATA_FLAGS,
)
PATHS = ("data_dir", "emnist_archive")  # differ between machines, not between results


def parse_study(usage: str, *own: Flag) -> Any:
    """A study's flags: its folder, its own, and whether to make what is missing."""
    return parse_flags(
        sys.argv,
        usage.strip(),
        Flag("workdir", "folder of the study", required=True),
        *own,
        Flag("runs", "make what is missing (--noruns: tables only)", bool, True),
    )


def run_settings(flags: Any) -> list[str]:
    """The `RUN_FLAGS` that are given, as arguments of `launch.py`."""
    values = {flag.name: getattr(flags, flag.name) for flag in RUN_FLAGS}
    return [f"--{k}={v}" for k, v in values.items() if v is not None]


def check_positive(flags: Any, *names: str) -> None:
    """Refuses counts below 1; None, a flag that was not given, is right.

    Raises:
      UserError: one of the flags `names` is below 1.
    """
    for name in names:
        value = getattr(flags, name)
        if value is not None and value < 1:
            raise UserError(f"--{name}={value}: must be at least 1")


def claim_folder(
    workdir: pathlib.Path, study: str, flags: Any, *names: str, **values: Any
) -> dict[str, Any]:
    """Keeps a study's settings in its folder, and refuses a folder of others.

    What is there already is not made again, so one table may not mix settings.

    Args:
      workdir: the folder, made if missing; `study.json` goes into it.
      study: name of the study.
      flags: its flags; of `RUN_FLAGS` those that it has count, except paths.
      *names: further flags that shape every result.
      **values: settings that are no flags.

    Returns:
      The settings by name.

    Raises:
      UserError: the folder is another study's or was made with other settings.
    """
    shared = [flag.name for flag in RUN_FLAGS if flag.name not in PATHS]
    names = [*(name for name in shared if name in flags), *names]
    ours = {"study": study} | {name: getattr(flags, name) for name in names} | values
    path = workdir / "study.json"
    if not path.exists():
        files.write_json(path, ours)
        return ours
    theirs = files.read_json(path)
    for name in sorted(ours.keys() | theirs.keys()):
        if ours.get(name) != theirs.get(name):
            raise UserError(
                f"--workdir={workdir}: was made with {name} {theirs.get(name)!r}, not "
                f"{ours.get(name)!r}; choose another folder, or that {name}"
            )
    return ours


def load_settings(workdir: pathlib.Path) -> dict[str, Any]:
    """What `claim_folder` kept; empty if the folder holds nothing of it."""
    path = workdir / "study.json"
    return files.read_json(path) if path.exists() else {}


def load_dataset(flags: Any) -> Dataset:
    """The data set that `DATA_FLAGS` name."""
    paths = {name: getattr(flags, name) for name in PATHS}
    return load(flags.dataset, **paths)


def images_of(run: Run, flags: Any) -> Selection:
    """The images that a run was made from, wherever `flags` say that they lie."""
    paths = {name: getattr(flags, name) for name in PATHS}
    given = {name: value for name, value in paths.items() if value is not None}
    return select(make_config(**run.config | given))


def run_missing(workdir: pathlib.Path, runs: Mapping[str, Sequence[str]]) -> None:
    """Runs what has no result yet: one process a run, each resumes where it stopped.

    Args:
      workdir: where the run folders go.
      runs: arguments of `launch.py` by run name, in the order to run them.

    Raises:
      UserError: a run ended with an error other than a dead or diverged training.
    """
    launch = pathlib.Path(__file__).parent.parent / "launch.py"
    for number, (name, arguments) in enumerate(runs.items(), start=1):
        if is_done(workdir / name):
            continue
        print(f"[{number}/{len(runs)}] {name}", flush=True)
        where = [f"--workdir={workdir}", f"--run_name={name}"]
        command = [sys.executable, launch, *arguments, *where]
        done = subprocess.run(command, check=False)
        if done.returncode and not is_done(workdir / name):
            raise UserError(f"{name} ended with status {done.returncode}; see above")


def is_done(run: pathlib.Path) -> bool:
    """Whether the run in this folder has ended, well or dead."""
    path = run / "results.json"
    return path.exists() and results.load_results(path)["status"] != "training"


def paired_difference(
    values: Mapping[int, float], base: Mapping[int, float]
) -> dict[str, Any] | None:
    """Mean of values - base over the seeds in both, with a 95% confidence interval.

    Args:
      values: a measurement by seed.
      base: the same measurement of what it is compared with, by seed.

    Returns:
      'n', 'difference' and 'interval_95' (Student's t); None for fewer than 2 pairs.
    """
    seeds = sorted(values.keys() & base.keys())
    if len(seeds) < 2:
        return None
    from scipy.stats import t

    gaps = np.array([values[seed] - base[seed] for seed in seeds])
    mean = float(gaps.mean())
    half = float(t.ppf(0.975, len(gaps) - 1) * gaps.std(ddof=1) / len(gaps) ** 0.5)
    return {
        "n": len(gaps),
        "difference": mean,
        "interval_95": [mean - half, mean + half],
    }


def mean_and_std(name: str, values: Iterable[float]) -> dict[str, float]:
    """`{name: mean, name_std: sample standard deviation}`, as far as they exist."""
    values = np.array(list(values), float)
    found = {}
    if len(values):
        found[name] = float(values.mean())
    if len(values) > 1:
        found[f"{name}_std"] = float(values.std(ddof=1))
    return found


def plus_minus(cell: Mapping[str, Any], name: str, digits: int) -> str:
    """'mean ± standard deviation' of what `mean_and_std` found, as far as it exists."""
    if name not in cell:
        return "-"
    text = f"{cell[name]:.{digits}f}"
    std = cell.get(f"{name}_std")
    return text if std is None else f"{text} ± {std:.{digits}f}"


def format_difference(found: Mapping[str, Any], digits: int = 5) -> str:
    """A paired difference as text; says so when its interval leaves 0 out."""
    low, high = found["interval_95"]
    verdict = "" if low <= 0 <= high else ", not 0"
    return (
        f"{found['difference']:+.{digits}f} "
        f"({low:+.{digits}f} to {high:+.{digits}f}{verdict})"
    )


def names(text: str, flag: str, known: Iterable[str]) -> list[str]:
    """The comma-separated names of a flag.

    Raises:
      UserError: one of them is not known.
    """
    known, found = list(known), text.split(",")
    for name in found:
        if name not in known:
            raise UserError(f"--{flag}={text}: {name!r} is none of {', '.join(known)}")
    return found


def seeds(count: int) -> range:
    """The seeds of a study, from 0.

    Raises:
      UserError: there are none.
    """
    if count < 1:
        raise UserError(f"--seeds={count}: must be at least 1")
    return range(count)


def write_tables(workdir: pathlib.Path, name: str, record: Any, text: str) -> None:
    """Writes `name.json` and `name.md` of a study, and prints the text."""
    files.write_json(workdir / f"{name}.json", record)
    with files.write_atomically(workdir / f"{name}.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(text)
