import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from emnist_jax.data import glyphs
from emnist_jax.runs import load_run
from experiments import equal_bytes

ROOT = pathlib.Path(__file__).parent.parent


@pytest.mark.parametrize("bits", equal_bytes.BITS)
def test_the_grid_is_as_fine_as_its_bits(bits):
    rows = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)
    rows[:, 3] = 5.0  # a dead latent
    grid = equal_bytes.Grid(rows, bits)
    indices = grid.indices(rows)
    assert indices.min() == 0 and indices[:, :3].max() == 2**bits - 1
    error = np.abs(grid.values(indices) - rows)
    assert (error <= grid.step[None] / 2 + 1e-5).all()
    outside = grid.indices(rows + 100)
    assert (outside[:, :3] == 2**bits - 1).all()


def test_sheets_hold_every_image():
    images = glyphs.load().train.images[:1500]
    made = equal_bytes.sheets(images)
    assert [x.shape for x in made] == [(896, 896)] * 2
    np.testing.assert_array_equal(made[0][28:56, 56:84], images[34, ..., 0])


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_codecs_keep_to_their_budget(kind):
    images = glyphs.load().train.images[:1024]
    size, level, decoded = equal_bytes.image_codec(kind, images, 128)
    assert 64 < size <= 128 and decoded.shape == images.shape
    smaller, lower, worse = equal_bytes.image_codec(kind, images, 64)
    assert smaller <= 64 and lower < level

    def error(x):
        return ((x.astype(float) - images) ** 2).mean()

    assert error(decoded) < error(worse) < error(np.zeros_like(images))
    assert equal_bytes.image_codec(kind, images, 1) is None


def test_tuning_lowers_the_error_of_quantised_latents(run_path, images):
    run = load_run(run_path)
    grid = equal_bytes.Grid(run.encode(images), 2)
    latents = grid.values(grid.indices(run.encode(images)))
    tuned = equal_bytes.tune_decoder(run, latents, images, 20)

    def error(model):
        return ((model.decode(latents) - images / np.float32(255)) ** 2).mean()

    assert error(tuned) < error(run) - 1e-3


def test_the_command(tmp_path):
    command = [
        sys.executable,
        "-m",
        "experiments.equal_bytes",
        f"--workdir={tmp_path}",
        "--dimensions=32",
        "--tuning_steps=1",
        "--dataset=glyphs",
        "--train_examples=40",
        "--test_examples=12",
        "--batch_size=8",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "equal_bytes.json").read_text())["rows"]
    names = {row["name"] for row in rows}
    assert names >= {"float32-32x32", "autoencoder-32x8", "tuned-32x4", "pca-32x8"}
    assert all(row["bytes"] <= row["budget"] for row in rows if "bytes" in row)
    assert (tmp_path / "equal_bytes.png").stat().st_size > 10_000
