"""Compares runs in one table, the best first.

  emnist-jax results runs                        # every run in the folder
  emnist-jax results runs sweep --csv > all.csv
  emnist-jax results sweep --plot=latent_dim     # error against it, as .png

Beside the figures stand the settings in which the runs differ.
"""

import csv
import pathlib
import statistics
import sys
from collections.abc import Sequence
from typing import Any

from emnist_jax.cli.arguments import Parser
from emnist_jax.cli.command import run_command
from emnist_jax.cli.console import warn
from emnist_jax.cli.errors import UserError
from emnist_jax.config import OPERATIONAL
from emnist_jax.storage import files, paths, results

FIGURES = ("mse", "psnr", "ssim", "dead", "validation", "epochs", "status")


def find(sources: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Results of runs by folder: those named, and those in the folders named.

    Raises:
      UserError: a source is or holds no run.
    """
    found = {}
    for source in map(pathlib.Path, sources):
        own = (source / "results.json").exists()
        places = [source] if own else sorted(source.glob("*/results.json"))
        if not places:
            raise UserError(f"{source}: neither a finished run nor a folder of such")
        for place in places:
            folder = place if own else place.parent
            try:
                found[str(folder)] = results.load_results(folder)
            except UserError as error:
                warn(f"left out: {error}")
    return found


def table(records: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """A row a run, the least test error first: its name, its figures, its settings.

    Args:
      records: results by folder.

    Returns:
      Rows of the same keys: 'run', those of `FIGURES` (None where there are none yet)
      and the settings that differ between the runs.
    """
    rows = []
    configs = [_part(record, "config") for record in records.values()]
    names = sorted({name for config in configs for name in config} - OPERATIONAL)
    differing = [n for n in names if len({str(c.get(n)) for c in configs}) > 1]
    for (folder, record), config in zip(records.items(), configs, strict=True):
        quality = _part(record, "test", "autoencoder")
        training = _part(record, "training")
        active = _number(_part(record, "test").get("active_latents"))
        dim = _number(config.get("latent_dim"))
        figures = {
            **{name: _number(quality.get(name)) for name in ("mse", "psnr", "ssim")},
            "dead": None if None in (active, dim) else dim - active,
            "validation": _number(training.get("validation_loss")),
            "epochs": _number(training.get("epochs")),
            "status": record.get("status"),
        }
        settings = {name: config.get(name) for name in differing}
        rows.append({"run": folder, **figures, **settings})
    return sorted(rows, key=lambda row: (row["mse"] is None, row["mse"], row["run"]))


def _part(record: dict[str, Any], *names: str) -> dict[str, Any]:
    """What lies at the end of some names; {} where anybody wrote something else."""
    for name in names:
        record = record.get(name)
        if not isinstance(record, dict):
            return {}
    return record


def _number(value: Any) -> int | float | None:
    return value if isinstance(value, int | float) else None


def format_table(rows: list[dict[str, Any]]) -> str:
    """The rows as aligned columns; those in which there is nothing are left out."""
    digits = {"mse": 5, "validation": 5, "ssim": 4, "psnr": 2}

    def cell(name: str, value: Any) -> str:
        if value is None:
            return "-"
        if isinstance(value, float):
            return f"{value:.{digits[name]}f}" if name in digits else f"{value:g}"
        return str(value)

    names = [n for n in rows[0] if any(row[n] is not None for row in rows)]
    cells = [names, *([cell(name, row[name]) for name in names] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = (
        "  ".join(f"{text:<{w}}" for text, w in zip(line, widths, strict=True))
        for line in cells
    )
    return "\n".join(line.rstrip() for line in lines)


def plot(rows: list[dict[str, Any]], setting: str, out: pathlib.Path) -> None:
    """Draws the test error of each run, and their means, against a setting.

    Raises:
      UserError: the runs do not differ in that setting, or it is no number.
    """
    points = [(r.get(setting), r["mse"]) for r in rows if r["mse"] is not None]
    if not points or not all(isinstance(x, int | float) for x, _ in points):
        known = [n for n in rows[0] if n not in ("run", *FIGURES)]
        raise UserError(
            f"--plot={setting}: must be a setting of numbers in which finished runs "
            f"differ: {', '.join(known) or 'there is none'}"
        )
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    values = sorted({x for x, _ in points})
    means = [statistics.mean(y for x, y in points if x == value) for value in values]
    plt.style.use("default")  # dark on white, whatever matplotlibrc says
    figure, axes = plt.subplots(figsize=(5, 3.2), layout="constrained")
    axes.plot(values, means, color="#4477aa")
    axes.plot(*zip(*points, strict=True), "o", color="#4477aa", alpha=0.6)
    axes.set(xlabel=setting, ylabel="test MSE", ylim=(0, None))
    axes.grid(color="#e5e5e5")
    with files.write_atomically(out) as temporary:
        figure.savefig(temporary, format="png", dpi=150)
    plt.close(figure)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command of the module's docstring."""
    parser = Parser(__doc__)
    text = "folders of runs, or of such folders"
    parser.add_argument("runs", nargs="+", action="store", help=text)
    parser.add_argument("--csv", action="store_true", help="as CSV, every column")
    parser.add_argument("--plot", help="draw the test error against this setting")
    parser.add_argument("--out", help="the .png of --plot [default: its SETTING.png]")
    flags = parser.parse_args(argv)
    if flags.out and not flags.plot:
        raise UserError(f"--out={flags.out}: needs --plot=SETTING")
    rows = table(find(flags.runs))
    if not rows:
        raise UserError("no run can be read")
    if flags.plot:
        out = paths.check_output(flags.out or f"{flags.plot}.png", flag="--out=")
        plot(rows, flags.plot, pathlib.Path(out))
        print(f"{out}: test MSE of {len(rows)} runs against {flags.plot}")
    elif flags.csv:
        writer = csv.DictWriter(sys.stdout, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    else:
        print(format_table(rows))


if __name__ == "__main__":
    run_command(main)
