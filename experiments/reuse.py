"""What a trained autoencoder saves on another data set: steps to a quality.

  python -m experiments.reuse --workdir=W --init_from=RUN --dataset=glyphs --epochs=10

Trains on the data set from scratch and from RUN's weights, whole or with one half
frozen, over several seeds; each run resumable and skipped when done. The rate stays
constant: one that falls to 0 would let a run reach its own end only at its end.
`reuse.json` and `reuse.md`, made from the runs' files alone, say after how many steps
the validation loss, measured after each epoch, was first at most what training from
scratch ends with, and twice that.
"""

import pathlib
from collections.abc import Sequence

from emnist_jax.cli.command import run_command
from emnist_jax.cli.errors import UserError
from emnist_jax.runs import load_run
from emnist_jax.storage import results
from experiments import study, tables

STARTS = {
    "scratch": None,
    "fine-tuned": "none",
    "encoder-frozen": "encoder",
    "decoder-frozen": "decoder",
}


def start_flags(start: str, init_from: str) -> list[str]:
    """Flags of `launch.py` for one key of `STARTS`."""
    freeze = STARTS[start]
    return [] if freeze is None else [f"--init_from={init_from}", f"--freeze={freeze}"]


def collect(workdir: pathlib.Path) -> list[dict]:
    """One row a finished run: start, seed, and [step, validation loss] by epoch."""
    rows = []
    for path in sorted(workdir.glob("*-seed*/results.json")):
        record = results.load_results(path)
        if record["status"] != "finished":
            continue
        log = results.read_metrics(path.parent / "metrics.jsonl", print)
        losses = [
            [line["step"], line["validation_loss"]]
            for line in log
            if line["event"] == "epoch"
        ]
        start, _, seed = path.parent.name.rpartition("-seed")
        rows.append({"start": start, "seed": int(seed), "losses": losses})
    if not any(row["start"] == "scratch" for row in rows):
        raise UserError(f"--workdir={workdir}: holds no finished run from scratch")
    return rows


def steps_to(losses: list[list], level: float) -> int | None:
    """Steps after which the loss was first at most `level`; None if it never was."""
    return next((step for step, loss in losses if loss <= level), None)


def summarise(rows: list[dict]) -> list[dict]:
    """Last losses and steps to quality of every start, over its seeds."""
    ends = {r["seed"]: r["losses"][-1][1] for r in rows if r["start"] == "scratch"}
    cells = []
    for start in STARTS:
        runs = [r for r in rows if r["start"] == start and r["seed"] in ends]
        cell = {"start": start, "n": len(runs)}
        last = (r["losses"][-1][1] for r in runs)
        cell |= tables.mean_and_std("validation_loss", last)
        for name, factor in (("twice", 2), ("same", 1)):
            steps = [steps_to(r["losses"], factor * ends[r["seed"]]) for r in runs]
            reached = [step for step in steps if step is not None]
            cell[f"{name}_reached"] = len(reached)
            cell |= tables.mean_and_std(f"steps_to_{name}", reached)
        cells.append(cell)
    return cells


def format_markdown(cells: list[dict]) -> str:
    """The summary as a Markdown table."""

    def steps(cell: dict, name: str) -> str:
        reached = f"{cell[f'{name}_reached']} of {cell['n']}"
        text = tables.plus_minus(cell, f"steps_to_{name}", 0)
        return f"{text} (reached by {reached})"

    return tables.markdown(
        "start | n | validation MSE at the end | steps to twice scratch's end | "
        "steps to scratch's end",
        (
            (
                cell["start"],
                cell["n"],
                tables.plus_minus(cell, "validation_loss", 5),
                steps(cell, "twice"),
                steps(cell, "same"),
            )
            for cell in cells
        ),
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command of the module's docstring."""
    parser = study.StudyParser(__doc__)
    parser.add_argument("--init_from", help="finished run to start from")
    parser.add_argument("--preset", help="of every run [default: the program's]")
    parser.add_runs()
    flags = parser.parse_args(argv)
    workdir = pathlib.Path(flags.workdir)
    if flags.runs:
        if flags.init_from is None:
            raise UserError("--init_from is missing: the finished run to start from")
        if flags.epochs < 2:
            raise UserError(f"--epochs={flags.epochs}: 2 at least, to compare steps")
        base = load_run(flags.init_from, flag="--init_from")
        source = base.path.name
        study.claim_folder(workdir, "reuse", flags, "preset", init_from=source)
        settings = [f"--preset={flags.preset}"] if flags.preset else []
        settings += [*study.run_settings(flags), "--schedule=constant"]
        for name in ("decoder", "latent_dim", "latent_activation"):
            settings.append(f"--{name}={base.config[name]}")
        runs = {
            f"{start}-seed{seed}": [
                *settings,
                *start_flags(start, flags.init_from),
                f"--seed={seed}",
            ]
            for seed in range(flags.seeds)
            for start in STARTS
        }
        study.run_missing(workdir, runs)
    rows = collect(workdir)
    cells = summarise(rows)
    record = {"rows": rows, "cells": cells}
    study.write(workdir / "reuse", record, format_markdown(cells))


if __name__ == "__main__":
    run_command(main)
