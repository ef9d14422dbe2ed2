"""Four decoders, several seeds and presets: which differences are more than chance.

  python -m experiments.compare_decoders --workdir=W --dataset=emnist/balanced \
      --emnist_archive=gzip.zip --epochs=1                  # 40 runs of 840 steps
  python -m experiments.compare_decoders --workdir=W --noruns   # tables and figures

Runs what is missing, one process a run, each resumable; then writes, from the result
files alone, `comparison.json`, `comparison.md` and the figures into W.
"""

import itertools
import pathlib
from collections.abc import Sequence

import numpy as np

from emnist_jax.cli.arguments import comma_separated
from emnist_jax.cli.command import run_command
from emnist_jax.cli.errors import UserError
from emnist_jax.config import PRESETS
from emnist_jax.models.registry import DECODERS
from emnist_jax.storage import results
from experiments import comparison_figures, study, tables

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
    """One row a run of the folder: names, metrics, and whether it collapsed.

    Raises:
      UserError: there is no run, or there are some that cannot be compared.
    """
    rows, shared, seen = [], {}, {}
    for path in sorted(workdir.glob("*/results.json")):
        record = results.load_results(path)
        config = record["config"]
        row = {name: config[name] for name in ("decoder", "preset", "seed")}
        for name in ("dataset", "epochs", "train_examples", "batch_size"):
            if shared.setdefault(name, config[name]) != config[name]:
                raise UserError(
                    f"--workdir={workdir}: {rows[0]['run']} has {name} "
                    f"{shared[name]!r}, {record['name']} {config[name]!r}; runs of "
                    "different settings are not compared"
                )
        twin = seen.setdefault(tuple(row.values()), record["name"])
        if twin != record["name"]:
            raise UserError(
                f"--workdir={workdir}: {twin} and {record['name']} have the same "
                "decoder, preset and seed; keep one of them"
            )
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
      'cells': one entry a preset and decoder; 'differences': the mean difference of
      the test MSE over the seeds that both finished, with a 95% confidence interval
      (Student's t), of every two decoders within a preset and of every two presets
      within a decoder; 'dead_latents': from `dead_latents_effect`, by preset.
    """
    finished = [row for row in rows if row["status"] == "finished"]
    mse = {}
    for row in finished:
        by_seed = mse.setdefault((row["preset"], row["decoder"]), {})
        by_seed[row["seed"]] = row["mse"]
    cells = []
    for preset, decoder in sorted({(r["preset"], r["decoder"]) for r in rows}):
        runs = [r for r in rows if (r["preset"], r["decoder"]) == (preset, decoder)]
        good = [r for r in runs if r["status"] == "finished"]
        cell = {"preset": preset, "decoder": decoder, "n": len(good)}
        cell["collapsed"] = sum(r["status"] in ("dead", "diverged") for r in runs)
        for name in (*METRICS, "active_latents", "train_loss", "validation_loss"):
            cell |= tables.mean_and_std(name, (r[name] for r in good))
        cells.append(cell)
    differences = []
    for shared in (0, 1):  # the preset, then the decoder
        for a, b in itertools.combinations(sorted(mse), 2):
            if a[shared] != b[shared]:
                continue
            if found := tables.paired_difference(mse[a], mse[b]):
                pair = [a[1 - shared], b[1 - shared]]
                differences.append({"within": a[shared], "pair": pair, **found})
    effects = {}
    for preset in sorted({row["preset"] for row in finished}):
        runs = [row for row in finished if row["preset"] == preset]
        if found := dead_latents_effect(runs):
            effects[preset] = found
    return {"cells": cells, "differences": differences, "dead_latents": effects}


def dead_latents_effect(runs: list[dict]) -> dict | None:
    """What one latent fewer does to the test MSE when the decoder stays the same.

    Least squares of the logarithm of the MSE on the number of active latents with an
    intercept for each decoder: runs of one decoder differ in their seed only.

    Args:
      runs: finished rows of one preset.

    Returns:
      'n', 'factor' of the MSE for each dead latent with its 'interval_95' (Student's
      t), and 'share', the part of the variance within decoders that dead latents
      account for; None where their number does not vary or runs are too few.
    """
    from scipy.stats import t

    decoders = sorted({row["decoder"] for row in runs})
    freedom = len(runs) - len(decoders) - 1
    groups = [[row for row in runs if row["decoder"] == name] for name in decoders]

    def within(values) -> np.ndarray:
        """Deviations from the mean of the same decoder's runs."""
        columns = [np.array([values(row) for row in group]) for group in groups]
        return np.concatenate([column - column.mean() for column in columns])

    dead = within(lambda row: -float(row["active_latents"]))
    loss = within(lambda row: np.log(row["mse"]))
    if freedom < 1 or not dead.any():
        return None
    slope = float(dead @ loss / (dead @ dead))
    rest = float(((loss - slope * dead) ** 2).sum())
    half = float(t.ppf(0.975, freedom) * (rest / freedom / (dead @ dead)) ** 0.5)
    interval = [float(np.exp(slope - half)), float(np.exp(slope + half))]
    return {
        "n": len(runs),
        "factor": float(np.exp(slope)),
        "interval_95": interval,
        "share": 1 - rest / float(loss @ loss),
    }


def format_effect(found: dict) -> str:
    """What `dead_latents_effect` found, as the end of a sentence."""
    low, high = found["interval_95"]
    return (
        f"multiplies the MSE by {found['factor']:.3f} (95% interval {low:.3f} to "
        f"{high:.3f}, {found['n']} runs)"
    )


def format_markdown(summary: dict, published: bool) -> str:
    """The summary as Markdown tables."""
    digits = {"mse": 5, "psnr": 2, "ssim": 4, "active_latents": 1}
    cells = [
        [
            *(cell[name] for name in ("preset", "decoder", "n", "collapsed")),
            *(tables.plus_minus(cell, name, n) for name, n in digits.items()),
        ]
        for cell in summary["cells"]
    ]
    note = ""
    if published:
        cells += [
            ["*published study**", name, 1, 0]
            + [f"{row['mse']:.5f}", "", f"{row['ssim']:.4f}", ""]
            for name, row in PUBLISHED.items()
        ]
        note = "\n\\* one run, ten test images, best epoch chosen on test\n"
    pairs = (
        (
            row["within"],
            " - ".join(row["pair"]),
            row["n"],
            tables.format_difference(row),
        )
        for row in summary["differences"]
    )
    parts = [
        tables.markdown(
            "preset | decoder | n | collapsed | MSE | PSNR dB | SSIM | active latents",
            cells,
        )
        + note,
        tables.markdown(
            "within | pair | n | difference of test MSE (95% interval)", pairs
        ),
        "Paired over seeds; intervals are not corrected for their number.\n",
    ]
    for preset, found in summary["dead_latents"].items():
        parts.append(
            f"{preset}: each dead latent {format_effect(found)}, decoders held fixed; "
            f"dead latents account for {100 * found['share']:.0f}% of the variance "
            "between seeds.\n"
        )
    return "\n".join(parts)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command of the module's docstring."""
    parser = study.StudyParser(__doc__, "scipy")
    add = parser.add_argument
    for name, known, default in (
        ("decoders", DECODERS, list(DECODERS)),
        ("presets", PRESETS, ["published", "best"]),
    ):
        kind = comma_separated(known=known)
        add(f"--{name}", type=kind, default=default, help="comma-separated")
    add("--published", action="store_true", help="add the published figures")
    parser.add_runs(seeds=5)
    flags = parser.parse_args(argv)
    workdir, seeds = pathlib.Path(flags.workdir), range(flags.seeds)
    if flags.runs:
        study.claim_folder(workdir, "compare_decoders", flags)
        settings = study.run_settings(flags)
        runs = matrix_runs(flags.decoders, flags.presets, seeds, settings)
        study.run_missing(workdir, runs)
    rows = collect(workdir)
    summary = {"rows": rows, **summarise(rows)}
    comparison_figures.draw(workdir, rows, PUBLISHED if flags.published else None)
    text = format_markdown(summary, flags.published)
    study.write(workdir / "comparison", summary, text)


if __name__ == "__main__":
    run_command(main)
