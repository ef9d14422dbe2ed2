"""Four decoders, several seeds and presets: which differences are more than chance.

  python -m experiments.compare_decoders --workdir=W --dataset=emnist/balanced \
      --emnist_archive=gzip.zip --epochs=1                  # 40 runs of 840 steps
  python -m experiments.compare_decoders --workdir=W --noruns   # tables and figures

Runs what is missing, one process a run, each resumable; then writes, from the result
files alone, `comparison.json`, `comparison.md` and the figures into W.
"""

import itertools
import pathlib
import subprocess
import sys

import numpy as np

from emnist_jax import files, results
from emnist_jax.config import PRESETS
from emnist_jax.errors import UserError, run_command
from emnist_jax.flags import Flag, parse_flags
from emnist_jax.models.decoders import DECODERS
from experiments import comparison_figures

METRICS = ("mse", "psnr", "ssim")

# mdhabibi, one run each; quality on ten test images, best epoch chosen on test.
PUBLISHED = {
    "model01": {"validation_loss": 0.00401, "mse": 0.00317, "ssim": 0.9806},
    "model02": {"validation_loss": 0.01121, "mse": 0.01106, "ssim": 0.9234},
    "model03": {"validation_loss": 0.00421, "mse": 0.00371, "ssim": 0.9739},
    "model04": {"validation_loss": 0.00533, "mse": 0.00468, "ssim": 0.9694},
}


def run_matrix(
    workdir: pathlib.Path,
    decoders: list[str],
    presets: list[str],
    seeds: list[int],
    settings: list[str],
) -> None:
    """Runs every cell that has no result yet, seeds first so that pairs come early.

    Args:
      workdir: where the run folders go.
      decoders: names of decoders.
      presets: names of presets.
      seeds: seeds, the same for every decoder and preset.
      settings: further flags of `launch.py`, the same for all.

    Raises:
      UserError: a run ended with an error other than a dead or diverged training.
    """
    cells = list(itertools.product(seeds, presets, decoders))
    for number, (seed, preset, decoder) in enumerate(cells, start=1):
        name = f"{decoder}-{preset}-seed{seed}"
        if _is_done(workdir / name):
            continue
        print(f"[{number}/{len(cells)}] {name}", flush=True)
        launch = pathlib.Path(__file__).parent.parent / "launch.py"
        flags = [
            f"--decoder={decoder}",
            f"--preset={preset}",
            f"--seed={seed}",
            f"--run_name={name}",
            f"--workdir={workdir}",
        ]
        done = subprocess.run([sys.executable, launch, *flags, *settings], check=False)
        if done.returncode and not _is_done(workdir / name):
            raise UserError(f"{name} ended with status {done.returncode}; see above")


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
                values = np.array([r[name] for r in good], float)
                if len(values):
                    cell[name] = float(values.mean())
                if len(values) > 1:
                    cell[f"{name}_std"] = float(values.std(ddof=1))
            cells.append(cell)
        for a, b in itertools.combinations(finished, 2):
            seeds = sorted(finished[a].keys() & finished[b].keys())
            gaps = np.array([finished[a][s] - finished[b][s] for s in seeds])
            if len(gaps) > 1:
                half = _student_t(len(gaps) - 1) * gaps.std(ddof=1) / len(gaps) ** 0.5
                differences.append(
                    {
                        "preset": preset,
                        "pair": [a, b],
                        "n": len(gaps),
                        "mse_difference": float(gaps.mean()),
                        "interval_95": [
                            float(gaps.mean() - half),
                            float(gaps.mean() + half),
                        ],
                    }
                )
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
        columns += [_plus_minus(cell, name, n) for name, n in digits.items()]
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
        low, high = row["interval_95"]
        verdict = "" if low <= 0 <= high else ", not 0"
        lines.append(
            f"| {row['preset']} | {row['pair'][0]} - {row['pair'][1]} | {row['n']} | "
            f"{row['mse_difference']:+.5f} ({low:+.5f} to {high:+.5f}{verdict}) |"
        )
    return "\n".join(lines) + "\n"


def _plus_minus(cell: dict, name: str, digits: int) -> str:
    if name not in cell:
        return "-"
    text = f"{cell[name]:.{digits}f}"
    std = cell.get(f"{name}_std")
    return text if std is None else f"{text} ± {std:.{digits}f}"


def _student_t(freedom: int) -> float:
    """97.5% quantile of Student's t."""
    from scipy.stats import t  # scikit-image brings scipy

    return float(t.ppf(0.975, freedom))


def _is_done(run: pathlib.Path) -> bool:
    path = run / "results.json"
    return path.exists() and results.load_results(path)["status"] != "training"


def _names(text: str, flag: str, known) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in known:
            raise UserError(f"--{flag}={text}: {name!r} is none of {', '.join(known)}")
    return names


def main() -> None:
    """Runs the command of the module's docstring."""
    flags = parse_flags(
        sys.argv,
        __doc__.strip(),
        Flag("workdir", "folder of the study", required=True),
        Flag("decoders", "comma-separated", default=",".join(DECODERS)),
        Flag("presets", "comma-separated", default="published,robust"),
        Flag("seeds", "how many seeds, from 0", int, 5),
        Flag("epochs", "epochs of each run", int, 1),
        Flag("train_examples", "seeded subset of the training images", int),
        Flag("test_examples", "seeded subset of the test images", int),
        Flag("batch_size", "images a step", int, 128),
        Flag("dataset", "what to train on", default="emnist/balanced"),
        Flag("data_dir", "where tfds keeps prepared data sets"),
        Flag("emnist_archive", "copy of NIST's gzip.zip"),
        Flag("runs", "train what is missing (--noruns: tables only)", bool, True),
        Flag("published", "add the published figures", bool, False),
    )
    workdir = pathlib.Path(flags.workdir)
    passed_on = (
        "epochs",
        "train_examples",
        "test_examples",
        "batch_size",
        "dataset",
        "data_dir",
        "emnist_archive",
    )
    if flags.runs:
        if flags.seeds < 1:
            raise UserError(f"--seeds={flags.seeds}: must be at least 1")
        run_matrix(
            workdir,
            _names(flags.decoders, "decoders", DECODERS),
            _names(flags.presets, "presets", PRESETS),
            list(range(flags.seeds)),
            [
                f"--{name}={value}"
                for name in passed_on
                if (value := getattr(flags, name)) is not None
            ],
        )
    rows = collect(workdir)
    summary = {"rows": rows, **summarise(rows)}
    files.write_json(workdir / "comparison.json", summary)
    text = format_markdown(summary, flags.published)
    with files.write_atomically(workdir / "comparison.md") as temporary:
        temporary.write_text(text)
    comparison_figures.draw(workdir, rows, PUBLISHED if flags.published else None)
    print(text)


if __name__ == "__main__":
    run_command(main)
