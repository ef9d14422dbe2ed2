"""What the studies share: flags, data, a folder of runs of `launch.py`, and files."""

import importlib.util
import pathlib
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from emnist_jax.cli.arguments import Parser, count
from emnist_jax.cli.errors import UserError
from emnist_jax.config import make_config
from emnist_jax.config.compose import select
from emnist_jax.data.datasets import load
from emnist_jax.data.selection import Selection
from emnist_jax.data.splits import Dataset
from emnist_jax.runs import Run
from emnist_jax.storage import files, paths, results

ROOT = pathlib.Path(__file__).parents[1]
PATHS = ("data_dir", "emnist_archive")  # differ between machines, not between results
# Flags of a study that every one of its runs gets.
SHARED = ("epochs", "train_examples", "test_examples", "batch_size", "dataset")


class StudyParser(Parser):
    """A parser with the flags that studies share."""

    def __init__(self, description: str | None, *needs: str):
        """Takes the module's docstring, and what it needs of the extra `studies`.

        Raises:
          UserError: a package is missing.
        """
        super().__init__(description)
        for package in needs:
            if importlib.util.find_spec(package) is None:
                raise UserError(f"needs {package}: pip install -e '.[studies]'")

    def add_paths(self) -> None:
        """Adds where the data lies."""
        self.add_argument("--data_dir", help="where tfds keeps prepared data sets")
        self.add_argument("--emnist_archive", help="copy of EMNIST in any form")

    def add_data(self, dataset: str = "emnist/balanced") -> None:
        """Adds whose images, and where they lie."""
        self.add_argument("--dataset", default=dataset, help="whose images")
        self.add_paths()

    def add_workdir(self) -> None:
        """Adds the folder of a study."""
        self.add_argument("--workdir", required=True, help="folder of the study")

    def add_runs(
        self, seeds: int | None = 3, epochs: int | None = 1, examples: int | None = None
    ) -> None:
        """Adds all of a study of runs; None leaves out `--seeds` or `--epochs`."""
        self.add_workdir()
        add = self.add_argument
        if seeds:
            add("--seeds", type=count, default=seeds, help="how many, from 0")
        if epochs:
            add("--epochs", type=count, default=epochs, help="epochs of each run")
        subset = "seeded subset of the {} images"
        help = subset.format("training")
        add("--train_examples", type=count, default=examples, help=help)
        add("--test_examples", type=count, help=subset.format("test"))
        add("--batch_size", type=count, default=128, help="images a step")
        self.add_data()
        help = "make nothing that is missing: tables only"
        add("--noruns", dest="runs", action="store_false", help=help)


def given(flags: Any, *names: str) -> dict[str, Any]:
    """The flags of these names that the command has and the call gives."""
    values = {name: getattr(flags, name, None) for name in names}
    return {name: value for name, value in values.items() if value is not None}


def run_settings(flags: Any) -> list[str]:
    """The shared flags that are given, as arguments of `launch.py`."""
    values = given(flags, *SHARED, *PATHS)
    return [f"--{name}={value}" for name, value in values.items()]


def claim_folder(
    workdir: pathlib.Path, study: str, flags: Any, *names: str, **values: Any
) -> dict[str, Any]:
    """Keeps a study's settings in its folder, and refuses a folder of others.

    What is there already is not made again, so one table may not mix settings.

    Args:
      workdir: the folder, made if missing; `study.json` goes into it.
      study: name of the study.
      flags: its flags; of `SHARED` those that it has count.
      *names: further flags that shape every result.
      **values: settings that are no flags.

    Returns:
      The settings by name.

    Raises:
      UserError: the folder is another study's or was made with other settings.
    """
    names = (*(name for name in SHARED if hasattr(flags, name)), *names)
    ours = {"study": study} | {name: getattr(flags, name) for name in names} | values
    path = workdir / "study.json"
    if not path.exists():
        files.write_json(path, ours)
        return ours
    theirs = files.read_json(path)
    _check_same(f"--workdir={workdir}", dict.fromkeys(theirs) | ours, theirs)
    return theirs


def load_settings(workdir: pathlib.Path) -> dict[str, Any]:
    """What `claim_folder` kept; empty if the folder holds nothing of it."""
    path = workdir / "study.json"
    return files.read_json(path) if path.exists() else {}


def resume(path: pathlib.Path, about: dict[str, Any], *parts: str) -> dict[str, Any]:
    """The results that a file holds, to add to them: `about` and a dict for each part.

    Raises:
      UserError: the file says something else about them.
    """
    if not path.exists():
        return about | {part: {} for part in parts}
    found = files.read_json(path)
    _check_same(f"--out={path}", about | {p: found.get(p, {}) for p in parts}, found)
    return found


def _check_same(flag: str, ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    for name in ours:
        if ours[name] != theirs.get(name):
            raise UserError(
                f"{flag}: was made with {name} {theirs.get(name)!r}, not "
                f"{ours[name]!r}; choose another, or that {name}"
            )


def load_dataset(flags: Any) -> Dataset:
    """The data set that the flags name."""
    return load(flags.dataset, **given(flags, *PATHS))


def images_of(run: Run, flags: Any) -> Selection:
    """The images that a run was made from, wherever `flags` say that they lie."""
    return select(make_config(**run.config | given(flags, *PATHS)))


def run_missing(workdir: pathlib.Path, runs: Mapping[str, Sequence[str]]) -> None:
    """Runs what has no result yet: one process a run, each resumes where it stopped.

    Args:
      workdir: where the run folders go.
      runs: arguments of `launch.py` by run name, in the order to run them.

    Raises:
      UserError: a run ended with an error other than a dead or diverged training.
    """
    for number, (name, arguments) in enumerate(runs.items(), start=1):
        if is_done(workdir / name):
            continue
        print(f"[{number}/{len(runs)}] {name}", flush=True)
        status = launch([*arguments, f"--workdir={workdir}", f"--run_name={name}"])
        if status and not is_done(workdir / name):
            raise UserError(f"{name} ended with status {status}; see above")


def measured(
    workdir: pathlib.Path, measures: Mapping[str, Callable[[], dict]]
) -> list[dict]:
    """The rows of a study that keeps each in a JSON file, made where it is missing.

    Args:
      workdir: where the files lie; those of earlier calls count too.
      measures: what makes a row, by its name, which ends in '-seed' and a number.

    Raises:
      UserError: there is no row.
    """
    for name, measure in measures.items():
        path = workdir / f"{name}.json"
        if not path.exists():
            print(name, flush=True)
            files.write_json(path, measure())
    rows = [files.read_json(path) for path in sorted(workdir.glob("*-seed*.json"))]
    if not rows:
        raise UserError(f"--workdir={workdir}: holds no results of this study")
    return rows


def launch(arguments: Sequence[str]) -> int:
    """Exit status of `launch.py` in a process of its own."""
    command = [sys.executable, ROOT / "launch.py", *arguments]
    return subprocess.run(command, check=False).returncode


def is_done(run: pathlib.Path) -> bool:
    """Whether the run in this folder has ended, well or dead."""
    path = run / "results.json"
    return path.exists() and results.load_results(path)["status"] != "training"


def check_output(path: str, *inputs: str | None, flag: str = "--out=") -> pathlib.Path:
    """Checks a .json to write before there is any work to lose, and the .md beside it.

    Args:
      path: as the user wrote it.
      *inputs: files that are read.
      flag: what stands in front of `path` in errors.

    Raises:
      UserError: it does not end in .json, or one of the two cannot be written or is an
        input.
    """
    out = pathlib.Path(path)
    if out.suffix != ".json":
        raise UserError(f"{flag}{path}: must end in .json; a .md goes along")
    for name in (out, out.with_suffix(".md")):
        paths.check_output(name, *inputs, flag=flag)
    return out


def write(stem: str | pathlib.Path, record: Any, text: str) -> None:
    """Writes results as `stem`.json and their tables as `stem`.md, and prints these."""
    # Not with_suffix, which would take the end of a name such as v1.2 for one.
    files.write_json(f"{stem}.json", record)
    with files.write_atomically(f"{stem}.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(text)
