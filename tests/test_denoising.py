"""Autoencoders that learn to mend, and what they are compared with."""

import numpy as np
import pytest

from emnist_jax.config import make_config
from emnist_jax.storage import files
from experiments import denoising


def test_damage_is_the_same_for_every_method(images):
    config = make_config(noise=0.2)
    noisy = denoising.damaged(images, config, seed=1)
    np.testing.assert_array_equal(noisy, denoising.damaged(images, config, seed=1))
    assert not np.array_equal(noisy, denoising.damaged(images, config, seed=2))
    error = ((noisy - images / np.float32(255)) ** 2).mean()
    assert 0.015 < error < 0.04  # less than 0.2**2: values are cut off at 0 and 1


def test_non_local_means_takes_noise_away(images):
    whole = images[:8] / np.float32(255)
    noisy = denoising.damaged(images[:8], make_config(noise=0.1), seed=0)
    found = denoising.non_local_means(noisy, 0.1)
    assert found.shape == noisy.shape and found.dtype == np.float32
    assert ((found - whole) ** 2).mean() < 0.7 * ((noisy - whole) ** 2).mean()


def test_the_table():
    rows = [
        {"task": "noise 0.1", "seed": seed, "mse": {"as it is": x, "trained": x / 2}}
        for seed, x in enumerate((0.01, 0.03))
    ]
    text = denoising.format_markdown(denoising.summarise(rows))
    line = next(line for line in text.splitlines() if "noise 0.1" in line)
    assert "0.0200 ± 0.0141" in line and "0.0100 ± 0.0071" in line


@pytest.mark.long
def test_the_command(run_path, tmp_path, monkeypatch):
    monkeypatch.setattr(denoising, "TASKS", {"hole 8x8": {"hole": 8}})
    call = [f"--workdir={tmp_path}", f"--init_from={run_path}", "--dataset=glyphs"]
    call += ["--seeds=1", "--steps=20", "--train_examples=300", "--test_examples=40"]
    denoising.main([*call, "--batch_size=16"])
    (row,) = files.read_json(tmp_path / "denoising.json")["rows"]
    assert set(row["mse"]) == set(denoising.METHODS) - {"means"}
    assert row["mse"]["trained"] < row["mse"]["autoencoder"]
    monkeypatch.setattr(denoising, "train", None)  # nothing is trained again
    denoising.main([*call, "--batch_size=16"])
    assert "| hole 8x8 | 1 |" in (tmp_path / "denoising.md").read_text()
