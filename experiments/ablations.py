"""What each setting is worth: variants of one base recipe on validation images alone.

  python -m experiments.ablations --workdir=W --study=schedule --emnist_archive=gzip.zip

Runs the study's variants over several seeds, one process a run, each resumable and
skipped when done; then writes, from the runs' files alone, `ablations-<study>.json`
and `.md` into W. Variants are compared after the last epoch, in pairs over seeds (one
seed means the same images, held-out images and initial values). Test images are held
out of it all: nothing here reads the runs' figures on them.
"""

import pathlib
import sys

from emnist_jax import files, results
from emnist_jax.errors import UserError, run_command
from emnist_jax.flags import Flag, parse_flags
from experiments import matrix

_MUON = ("--optimizer=muon", "--learning_rate=5e-3")

# Flags of `launch.py` on top of the preset; the first variant of a study is its base.
STUDIES: dict[str, dict[str, tuple[str, ...]]] = {
    "schedule": {
        "constant-1e-3": ("--schedule=constant", "--learning_rate=1e-3"),
        "constant-2e-3": ("--schedule=constant", "--learning_rate=2e-3"),
        "cosine-1e-3": ("--schedule=cosine", "--learning_rate=1e-3"),
        "cosine-2e-3": ("--schedule=cosine", "--learning_rate=2e-3"),
        "cosine-3e-3": ("--schedule=cosine", "--learning_rate=3e-3"),
        "averaged-2e-3": (
            "--schedule=constant",
            "--learning_rate=2e-3",
            "--weight_averaging=0.1",
        ),
    },
    "recipe": {
        "robust": (),
        "muon-2e-3": ("--optimizer=muon", "--learning_rate=2e-3"),
        "muon-5e-3": ("--optimizer=muon", "--learning_rate=5e-3"),
        "muon-1e-2": ("--optimizer=muon", "--learning_rate=1e-2"),
        "batch-64": ("--batch_size=64", "--learning_rate=2e-3"),
        "decay-0.1": ("--weight_decay=0.1",),
    },
    "regularisation": {
        "muon": _MUON,
        "decay-0.3": (*_MUON, "--weight_decay=0.3"),
        "decay-1": (*_MUON, "--weight_decay=1"),
        "shift-1": (*_MUON, "--shift_pixels=1"),
        "averaged": (*_MUON, "--schedule=constant", "--weight_averaging=0.1"),
        "batch-64": (*_MUON, "--batch_size=64"),
    },
}
LAST_EPOCH = ("validation_loss", "train_loss", "active_latents")


def collect(workdir: pathlib.Path, variants: list[str], seeds: range) -> list[dict]:
    """One row a run that has ended: variant, seed, status, and its last epoch."""
    rows = []
    for variant in variants:
        for seed in seeds:
            path = workdir / f"{variant}-seed{seed}"
            if not matrix.is_done(path):
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
        raise UserError(f"--workdir={workdir}: holds no finished run of this study")
    return rows


def summarise(rows: list[dict], variants: list[str]) -> list[dict]:
    """Means, standard deviations and paired differences to the base, a variant a row.

    Args:
      rows: from `collect`.
      variants: names, the base first.
    """
    base, cells = None, []
    for variant in variants:
        runs = [row for row in rows if row["variant"] == variant]
        good = [row for row in runs if row["status"] == "finished"]
        losses = {row["seed"]: row["validation_loss"] for row in good}
        base = losses if base is None else base
        cell = {"variant": variant, "n": len(good), "failed": len(runs) - len(good)}
        for name in ("validation_loss", "train_loss", "dead_latents"):
            cell |= matrix.mean_and_std(name, (row[name] for row in good))
        if variant != variants[0]:
            cell["to_base"] = matrix.paired_difference(losses, base)
        cells.append(cell)
    return cells


def format_markdown(cells: list[dict]) -> str:
    """The summary as a Markdown table."""
    lines = [
        "| variant | n | failed | validation MSE | training MSE | dead latents | "
        "difference to the first (95% interval, paired) |",
        "|---|---|---|---|---|---|---|",
    ]
    for cell in cells:
        columns = [cell["variant"], cell["n"], cell["failed"]]
        digits = {"validation_loss": 5, "train_loss": 5, "dead_latents": 1}
        columns += [matrix.plus_minus(cell, name, n) for name, n in digits.items()]
        found = cell.get("to_base")
        columns.append(matrix.format_difference(found) if found else "-")
        lines.append("| " + " | ".join(map(str, columns)) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Runs the command of the module's docstring."""
    flags = parse_flags(
        sys.argv,
        __doc__.strip(),
        Flag("workdir", "folder of the study", required=True),
        Flag("study", f"one of {', '.join(STUDIES)}", required=True),
        Flag("variants", "comma-separated (default: all of the study)"),
        Flag("decoder", "which of the four decoders", default="model03"),
        Flag("seeds", "how many seeds, from 0", int, 3),
        *matrix.RUN_FLAGS,
        Flag("runs", "train what is missing (--noruns: the table only)", bool, True),
    )
    (study,) = matrix.names(flags.study, "study", STUDIES)
    variants = list(STUDIES[study])
    chosen = variants
    if flags.variants:
        chosen = matrix.names(flags.variants, "variants", variants)
    workdir, seeds = pathlib.Path(flags.workdir), matrix.seeds(flags.seeds)
    settings = [f"--decoder={flags.decoder}", *matrix.run_settings(flags)]
    if flags.runs:
        runs = {  # seeds first: pairs come early
            f"{variant}-seed{seed}": [
                *settings,
                *STUDIES[study][variant],
                f"--seed={seed}",
            ]
            for seed in seeds
            for variant in chosen
        }
        matrix.run_missing(workdir, runs)
    rows = collect(workdir, variants, seeds)
    cells = summarise(rows, variants)
    base = {"decoder": flags.decoder} | {
        flag.name: getattr(flags, flag.name)
        for flag in matrix.RUN_FLAGS
        if flag.name not in ("data_dir", "emnist_archive")
    }
    record = {
        "study": study,
        "base": base,
        "variants": {name: list(STUDIES[study][name]) for name in variants},
        "rows": rows,
        "cells": cells,
    }
    files.write_json(workdir / f"ablations-{study}.json", record)
    text = format_markdown(cells)
    with files.write_atomically(workdir / f"ablations-{study}.md") as temporary:
        temporary.write_text(text)
    print(text)


if __name__ == "__main__":
    run_command(main)
