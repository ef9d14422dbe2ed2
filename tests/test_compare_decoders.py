import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from emnist_jax.errors import UserError
from experiments import compare_decoders, comparison_figures, matrix


def rows(gap=0.001, n=4):
    generator = np.random.default_rng(0)
    made = []
    for seed in range(n):
        common = generator.normal(0, 0.002)
        for k, decoder in enumerate(("model01", "model02")):
            mse = 0.01 + common + k * gap + generator.normal(0, 1e-4)
            made.append(
                {
                    "decoder": decoder,
                    "preset": "robust",
                    "seed": seed,
                    "run": f"{decoder}-{seed}",
                    "status": "finished",
                    **dict.fromkeys(("psnr", "psnr_decoder_only"), 20.0),
                    **dict.fromkeys(("ssim", "ssim_decoder_only"), 0.9),
                    **dict.fromkeys(("mse", "mse_decoder_only"), mse),
                    **dict.fromkeys(("train_loss", "validation_loss"), mse),
                    "active_latents": 32 - k,
                }
            )
    return made


def test_pairs_show_what_single_runs_hide():
    made = rows()
    dead = {"decoder": "model02", "preset": "robust", "seed": 9, "status": "dead"}
    summary = compare_decoders.summarise([*made, dead])
    first, second = summary["cells"]
    assert (first["n"], second["collapsed"]) == (4, 1)
    assert first["mse_std"] > 0.001  # seeds differ by more than decoders
    (difference,) = summary["differences"]
    low, high = difference["interval_95"]
    assert low < -0.001 < high < 0 and difference["n"] == 4
    gaps = [a["mse"] - b["mse"] for a, b in zip(made[::2], made[1::2], strict=True)]
    assert difference["difference"] == pytest.approx(np.mean(gaps))
    # Student's t with 3 degrees of freedom, from a table
    half = 3.1824 * np.std(gaps, ddof=1) / 2
    assert high - low == pytest.approx(2 * half, rel=1e-4)


def test_tables_and_figures(tmp_path):
    made = rows()
    text = compare_decoders.format_markdown(compare_decoders.summarise(made), True)
    assert "model01 - model02 | 4 | -0.00" in text and "not 0" in text
    assert "one run, ten test images" in text
    paths = comparison_figures.draw(tmp_path, made, compare_decoders.PUBLISHED)
    assert [p.name for p in paths] == ["comparison.png", "active_latents.png"]
    assert all(p.stat().st_size > 10_000 for p in paths)


def test_the_command_runs_what_is_missing(tmp_path):
    command = [
        sys.executable,
        "-m",
        "experiments.compare_decoders",
        f"--workdir={tmp_path}",
        "--decoders=model02",
        "--presets=robust",
        "--seeds=1",
        "--dataset=glyphs",
        "--train_examples=40",
        "--test_examples=12",
        "--batch_size=8",
    ]
    root = pathlib.Path(__file__).parent.parent
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "[1/1] model02-robust-seed0" in done.stdout
    summary = json.loads((tmp_path / "comparison.json").read_text())
    assert summary["cells"][0]["n"] == 1
    assert (tmp_path / "comparison.png").exists()
    again = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert again.returncode == 0 and "[1/1]" not in again.stdout


def test_bad_calls(tmp_path):
    with pytest.raises(UserError, match="--decoders=model09: 'model09' is none of"):
        matrix.names("model09", "decoders", compare_decoders.DECODERS)
    with pytest.raises(UserError, match="holds no run"):
        compare_decoders.collect(tmp_path)
