"""What each setting is worth: variants of one base recipe on validation images alone.

  python -m experiments.ablations --workdir=W --train_examples=20000 --epochs=3 \
      --test_examples=128 --emnist_archive=gzip.zip

Runs variants of the preset `robust` over several seeds, one process a run, each
resumable and skipped when done; then writes, from the runs' files alone,
`ablations.json` and `ablations.md` into W. Variants are compared after the last epoch,
in pairs over seeds (one seed means the same images, held-out images and initial
values), each with the nearest variant above it in the table. The training MSE is the
mean over the last epoch, of images as they are trained on, shifts included. Test
images are left out of it all: nothing here reads the runs' figures on them.
"""

import pathlib
from collections.abc import Sequence

from emnist_jax.cli.arguments import comma_separated
from emnist_jax.cli.command import run_command
from emnist_jax.cli.errors import UserError
from emnist_jax.storage import results
from experiments import study, tables


def _flags(optimizer: str, schedule: str, rate: float, *more: str) -> tuple[str, ...]:
    named = f"--optimizer={optimizer}", f"--schedule={schedule}"
    return (*named, f"--learning_rate={rate:g}", *more)


def _shift(pixels: int, *more: str) -> tuple[str, ...]:
    return _flags("muon", "cosine", 5e-3, f"--shift_pixels={pixels}", *more)


# Flags of `launch.py` on top of the preset `robust`.
VARIANTS: dict[str, tuple[str, ...]] = {
    "cosine-3e-3": _flags("adam", "cosine", 3e-3),
    "cosine-2e-3": _flags("adam", "cosine", 2e-3),
    "cosine-1e-3": _flags("adam", "cosine", 1e-3),
    "constant-2e-3": _flags("adam", "constant", 2e-3),
    "constant-1e-3": _flags("adam", "constant", 1e-3),
    "muon-2e-3": _flags("muon", "cosine", 2e-3),
    "muon-5e-3": _flags("muon", "cosine", 5e-3),
    "muon-1e-2": _flags("muon", "cosine", 1e-2),
    "muon-shift": _shift(1),
    "muon-shift-2": _shift(2),
    # What `best` shares with `robust`, each taken back alone:
    "muon-shift-relu": _shift(1, "--latent_activation=relu"),
    "muon-shift-he": _shift(1, "--initialization=he_uniform"),
    "muon-shift-zero-bias": _shift(1, "--output_bias=zero"),
}
BASE = next(iter(VARIANTS))
LAST_EPOCH = ("validation_loss", "train_loss", "active_latents")


def reference(variant: str) -> str:
    """The variant that one is compared with; it stands before it in `VARIANTS`."""
    if variant.startswith("muon-shift-"):
        return "muon-shift"
    return "muon-5e-3" if variant in ("muon-averaged", "muon-shift") else BASE


def collect(workdir: pathlib.Path, seeds: range) -> list[dict]:
    """One row a run that has ended: variant, seed, status, and its last epoch."""
    rows = []
    for variant in VARIANTS:
        for seed in seeds:
            path = workdir / f"{variant}-seed{seed}"
            if not study.is_done(path):
                continue
            record = results.load_results(path)
            row = {"variant": variant, "seed": seed, "status": record["status"]}
            if record["status"] == "finished":
                log = results.read_metrics(path / "metrics.jsonl", print)
                last = [line for line in log if line["event"] == "epoch"][-1]
                row |= {name: last[name] for name in ("step", "epoch", *LAST_EPOCH)}
                row["dead_latents"] = record["config"]["latent_dim"]
                row["dead_latents"] -= row.pop("active_latents")
            rows.append(row)
    if not rows:
        raise UserError(f"--workdir={workdir}: holds no finished run of a variant")
    return rows


def summarise(rows: list[dict]) -> list[dict]:
    """Means, standard deviations and paired differences, a variant a row.

    Args:
      rows: from `collect`.
    """
    losses: dict[str, dict[int, float]] = {}
    cells = []
    # Of older results also variants that are made no more.
    for variant in dict.fromkeys(row["variant"] for row in rows):
        runs = [row for row in rows if row["variant"] == variant]
        good = [row for row in runs if row["status"] == "finished"]
        losses[variant] = {row["seed"]: row["validation_loss"] for row in good}
        cell = {"variant": variant, "n": len(good), "failed": len(runs) - len(good)}
        for name in ("validation_loss", "train_loss", "dead_latents"):
            cell |= tables.mean_and_std(name, (row[name] for row in good))
        if variant != BASE:
            cell["reference"] = reference(variant)
            base = losses.get(cell["reference"], {})
            cell["difference"] = tables.paired_difference(losses[variant], base)
        cells.append(cell)
    return cells


def format_markdown(cells: list[dict]) -> str:
    """The summary as a Markdown table."""
    return tables.markdown(
        "variant | n | failed | validation MSE | training MSE | dead latents | "
        "compared with | difference (95% interval, paired)",
        (
            (
                cell["variant"],
                cell["n"],
                cell["failed"],
                tables.plus_minus(cell, "validation_loss", 5),
                tables.plus_minus(cell, "train_loss", 5),
                tables.plus_minus(cell, "dead_latents", 1),
                cell.get("reference", "-"),
                tables.format_difference(cell.get("difference")),
            )
            for cell in cells
        ),
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command of the module's docstring."""
    parser = study.StudyParser(__doc__, "scipy")
    variants = comma_separated(known=VARIANTS)
    parser.add_argument("--variants", type=variants, help="some only, comma-separated")
    parser.add_argument("--decoder", default="model03", help="which of the four")
    parser.add_runs()
    flags = parser.parse_args(argv)
    workdir, seeds = pathlib.Path(flags.workdir), range(flags.seeds)
    settings = ["--preset=robust", f"--decoder={flags.decoder}"]
    settings += study.run_settings(flags)
    if flags.runs:
        study.claim_folder(workdir, "ablations", flags, "decoder")
        runs = {  # seeds first: pairs come early
            f"{variant}-seed{seed}": [*settings, *VARIANTS[variant], f"--seed={seed}"]
            for seed in seeds
            for variant in flags.variants or VARIANTS
        }
        study.run_missing(workdir, runs)
    rows = collect(workdir, seeds)
    cells = summarise(rows)
    record = {
        "base": study.load_settings(workdir),
        "variants": {name: list(flags) for name, flags in VARIANTS.items()},
        "rows": rows,
        "cells": cells,
    }
    study.write(workdir / "ablations", record, format_markdown(cells))


if __name__ == "__main__":
    run_command(main)
