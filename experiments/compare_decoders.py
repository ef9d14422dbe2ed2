"""Four decoders, several seeds and presets: which differences are more than chance.

  python -m experiments.compare_decoders --workdir=W --dataset=emnist/balanced \
      --emnist_archive=gzip.zip --epochs=1                  # 40 runs of 840 steps
  python -m experiments.compare_decoders --workdir=W --noruns   # tables and figures

Runs what is missing, one process a run, each resumable; then writes, from the result
files alone, `comparison.json`, `comparison.md` and the figures into W.
"""

import itertools
import pathlib
import sys

from emnist_jax import results
from emnist_jax.config import PRESETS
from emnist_jax.errors import UserError, run_command
from emnist_jax.flags import Flag, parse_flags
from emnist_jax.models.decoders import DECODERS
from experiments import comparison_figures, matrix

METRICS = ("mse", "psnr", "ssim")

# mdhabibi, one run each; quality on ten test images, best epoch chosen on test.
PUBLISHED = {
    "model01": {"validation_loss": 0.00401, "mse": 0.00317, "ssim": 0.9806},
    "model02": {"validation_loss": 0.01121, "mse": 0.01106, "ssim": 0.9234},
    "model03": {"validation_loss": 0.00421, "mse": 0.00371, "ssim": 0.9739},
    "model04": {"validation_loss": 0.00533, "mse": 0.00468, "ssim": 0.9694},
}


def matrix_runs(
    decoders: list[str], presets: list[str], seeds: range, settings: list[str]
) -> dict[str, list[str]]:
    """Arguments of `launch.py` of every cell, seeds first so that pairs come early.

    Args:
      decoders: names of decoders.
      presets: names of presets.
      seeds: seeds, the same for every decoder and preset.
      settings: further flags, the same for all.
    """
    return {
        f"{decoder}-{preset}-seed{seed}": [
            f"--decoder={decoder}",
            f"--preset={preset}",
            f"--seed={seed}",
            *settings,
        ]
        for seed, preset, decoder in itertools.product(seeds, presets, decoders)
    }


def collect(workdir: pathlib.Path) -> list[dict]:
    """One row a run of the folder: names, metrics, and whether it collapsed."""
    rows = []
    for path in sorted(workdir.glob("*/results.json")):
        record = results.load_results(path)
        config = record["config"]
        row = {name: config[name] for name in ("decoder", "preset", "seed")}
        row |= {"run": record["name"], "status": record["status"]}
        if record["status"] == "finished":
            row |= {name: record["test"]["autoencoder"][name] for name in METRICS}
            row |= {
                f"{name}_decoder_only": record["test"]["decoder_only"][name]
                for name in METRICS
            }
            row["active_latents"] = record["test"]["active_latents"]
            for name in ("train_loss", "validation_loss"):
                row[name] = record["training"][name]
        rows.append(row)
    if not rows:
        raise UserError(f"--workdir={workdir}: holds no run with a results.json")
    return rows


def summarise(rows: list[dict]) -> dict:
    """Means, standard deviations, and paired differences over seeds.

    Args:
      rows: from `collect`.

    Returns:
      'cells': one entry a preset and decoder; 'differences': for each preset and
      pair of decoders the mean difference of the test MSE over the seeds that both
      finished, with a 95% confidence interval (Student's t).
    """
    cells, differences = [], []
    for preset in sorted({row["preset"] for row in rows}):
        finished = {}
        for decoder in sorted({row["decoder"] for row in rows}):
            runs = [r for r in rows if (r["preset"], r["decoder"]) == (preset, decoder)]
            good = [r for r in runs if r["status"] == "finished"]
            finished[decoder] = {r["seed"]: r["mse"] for r in good}
            cell = {"preset": preset, "decoder": decoder, "n": len(good)}
            cell["collapsed"] = sum(r["status"] in ("dead", "diverged") for r in runs)
            for name in (*METRICS, "active_latents", "train_loss", "validation_loss"):
                cell |= matrix.mean_and_std(name, (r[name] for r in good))
            cells.append(cell)
        for a, b in itertools.combinations(finished, 2):
            if found := matrix.paired_difference(finished[a], finished[b]):
                differences.append({"preset": preset, "pair": [a, b], **found})
    return {"cells": cells, "differences": differences}


def format_markdown(summary: dict, published: bool) -> str:
    """The summary as Markdown tables."""
    lines = [
        "| preset | decoder | n | collapsed | MSE | PSNR dB | SSIM | active latents |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for cell in summary["cells"]:
        columns = [cell["preset"], cell["decoder"], cell["n"], cell["collapsed"]]
        digits = {"mse": 5, "psnr": 2, "ssim": 4, "active_latents": 1}
        columns += [matrix.plus_minus(cell, name, n) for name, n in digits.items()]
        lines.append("| " + " | ".join(map(str, columns)) + " |")
    if published:
        for name, row in PUBLISHED.items():
            lines.append(
                f"| *published study** | {name} | 1 | 0 | {row['mse']:.5f} | | "
                f"{row['ssim']:.4f} | |"
            )
        lines.append("\n\\* one run, ten test images, best epoch chosen on test")
    lines += ["", "| preset | pair | n | difference of test MSE (95% interval) |"]
    lines.append("|---|---|---|---|")
    for row in summary["differences"]:
        lines.append(
            f"| {row['preset']} | {row['pair'][0]} - {row['pair'][1]} | {row['n']} | "
            f"{matrix.format_difference(row)} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Runs the command of the module's docstring."""
    flags = parse_flags(
        sys.argv,
        __doc__.strip(),
        Flag("workdir", "folder of the study", required=True),
        Flag("decoders", "comma-separated", default=",".join(DECODERS)),
        Flag("presets", "comma-separated", default="published,best"),
        Flag("seeds", "how many seeds, from 0", int, 5),
        *matrix.RUN_FLAGS,
        Flag("runs", "train what is missing (--noruns: tables only)", bool, True),
        Flag("published", "add the published figures", bool, False),
    )
    workdir = pathlib.Path(flags.workdir)
    if flags.runs:
        runs = matrix_runs(
            matrix.names(flags.decoders, "decoders", DECODERS),
            matrix.names(flags.presets, "presets", PRESETS),
            matrix.seeds(flags.seeds),
            matrix.run_settings(flags),
        )
        matrix.run_missing(workdir, runs)
    rows = collect(workdir)
    summary = {"rows": rows, **summarise(rows)}
    comparison_figures.draw(workdir, rows, PUBLISHED if flags.published else None)
    matrix.write_tables(
        workdir, "comparison", summary, format_markdown(summary, flags.published)
    )


if __name__ == "__main__":
    run_command(main)
