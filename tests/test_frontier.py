"""The frontier: every kind of point, measured once, and who wins at which size."""

import dataclasses

import numpy as np
import pytest

from emnist_jax.data import glyphs
from emnist_jax.storage import files
from experiments import frontier, study


def test_who_wins_at_a_size():
    rows = [
        {"name": "a", "method": "x", "bytes": 10.0, "mse": 0.01, "ssim": 0.9},
        {"name": "b", "method": "y", "bytes": 20.0, "mse": 0.02, "ssim": 0.8},
        {"name": "c", "method": "y", "bytes": 90.0, "mse": 0.0, "ssim": 1.0},
        {"name": "d", "method": "z"},  # no setting was small enough
    ]
    assert frontier.best_within(rows[:3], 9) is None
    assert frontier.best_within(rows[:3], 30)["name"] == "a"
    text = frontier.format_markdown(rows)
    assert "| 24 | a | 10.0 | 0.01 | 20.00 | 0.9000 |" in text
    assert "| 94 | c | 90.0 | 0 | exact | 1.0000 |" in text
    assert "| 24 | 0.01 | 0.02 |" in text and "| 8 | | |" in text


@pytest.mark.long
def test_the_command(tmp_path, run_path, monkeypatch):
    data = glyphs.load()
    few = dataclasses.replace(
        data,
        train=data.train.select(np.arange(200)),
        test=data.test.select(np.arange(40)),
    )
    monkeypatch.setattr(study, "load_dataset", lambda flags: few)
    for name, value in {
        "BUDGETS": (4, 64),
        "ERRORS": (4,),
        "LATENT_BYTES": (200,),
        "DIMENSIONS": (8,),
        "KINDS": ("WEBP", "AVIF", "JPEG XL"),
        "LEVELS": (50,),
    }.items():
        monkeypatch.setattr(frontier, name, value)
    call = [f"--workdir={tmp_path}", f"--runs={run_path}", f"--published={run_path}"]
    frontier.main(call)
    rows = files.read_json(tmp_path / "frontier.json")["rows"]
    by_name = {row["name"]: row for row in rows}
    assert by_name["lossless"]["mse"] == 0
    assert by_name["near-lossless-4"]["mse"] <= (4 / 255) ** 2
    assert by_name["lossy-64"]["bytes"] <= 66 and "mse" not in by_name["lossy-4"]
    methods = {"lossless", "near-lossless", "lossy", "latents", "PCA", *frontier.KINDS}
    assert methods < {row["method"] for row in rows}
    assert (tmp_path / "frontier.png").read_bytes()[:4] == b"\x89PNG"
    monkeypatch.setattr(frontier, "quality", None)  # nothing is measured again
    frontier.main(call)
