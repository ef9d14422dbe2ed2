import json

import numpy as np
import pytest

from emnist_jax.data import glyphs
from emnist_jax.runs import load_run
from experiments import equal_bytes, image_codecs, quantised


@pytest.mark.parametrize("bits", equal_bytes.BITS)
def test_the_grid_is_as_fine_as_its_bits(bits):
    rows = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)
    rows[:, 3] = 5.0  # a dead latent
    grid = quantised.Grid(rows, bits)
    found = grid.values(rows)
    assert all(len(np.unique(column)) <= 2**bits for column in found.T)
    # of a normal distribution; the best uniform quantisers leave 0.119, 0.0115
    # and 0.0001 of its variance (Max, 1960)
    error = ((found - rows)[:, :3] ** 2).mean()
    assert error < {2: 0.14, 4: 0.014, 8: 0.0002}[bits]
    np.testing.assert_allclose(found[:, 3], 5, atol=1e-5)
    top = grid.low + (grid.levels - 1) * grid.step
    np.testing.assert_allclose(grid.values(rows + 100)[0], top, rtol=1e-6)


def test_a_sheet_holds_every_image():
    images = glyphs.load().train.images[:1500, ..., 0]
    made = image_codecs.sheet(images, rows=50, columns=32)
    assert made.shape == (1400, 896)
    np.testing.assert_array_equal(made[28:56, 56:84], images[34])
    assert not made[-28:].any()


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_codecs_keep_to_their_budget(kind):
    images = glyphs.load().train.images[:1024]
    size, level, decoded = image_codecs.best_within(kind, images, 128)
    assert 64 < size <= 128 and decoded.shape == images.shape
    smaller, lower, worse = image_codecs.best_within(kind, images, 64)
    assert smaller <= 64 and lower < level

    def error(x):
        return ((x.astype(float) - images) ** 2).mean()

    assert error(decoded) < error(worse) < error(np.zeros_like(images))
    assert image_codecs.best_within(kind, images, 1) is None


@pytest.mark.long
def test_tuning_lowers_the_error_of_quantised_latents(run_path, images, tmp_path):
    run = load_run(run_path)
    grid = quantised.Grid(run.encode(images), 2)
    tuned = quantised.tune(run, grid, images, 40, tmp_path)

    def error(model):
        made = model.decode(grid.values(model.encode(images)))
        return ((made - images / np.float32(255)) ** 2).mean()

    assert error(tuned) < error(run) - 1e-3
    assert not np.array_equal(tuned.encode(images), run.encode(images))
    drift = np.abs(tuned.encode(images) - run.encode(images)) / grid.step[None]
    assert drift.mean() < 2


def test_how_many_bytes_the_same_quality_takes():
    rows = [
        {"name": "float32-latents-32", "bytes": 128, "mse": 0.004},
        {"name": "float32-other", "bytes": 128, "mse": 0.003},
        {"name": "coded-32x8", "bytes": 60, "mse": 0.004},
        {"name": "coded-32x6", "bytes": 32, "mse": 0.00403},
        {"name": "coded-32x5", "bytes": 20, "mse": 0.00406},
        {"name": "coded-16x8", "bytes": 10, "mse": 0.001},
    ]
    assert equal_bytes.equal_quality(rows) == {32: (rows[3], 0.25)}


def test_the_figure_leaves_out_what_is_beaten(tmp_path, monkeypatch):
    row = {"method": "coded", "name": "", "budget": 32}
    rows = [row | {"bytes": b, "mse": e} for b, e in ((9, 0.2), (20, 0.3), (30, 0.1))]
    drawn = []
    monkeypatch.setattr(
        equal_bytes, "save", lambda figure, path: drawn.append(figure.axes[0].lines)
    )
    equal_bytes.draw([*rows, row], tmp_path / "figure.png")
    (lines,) = drawn
    assert [line.get_xydata().tolist() for line in lines] == [[[9, 0.2], [30, 0.1]]]


@pytest.mark.usefixtures("few_derivatives")
@pytest.mark.long
def test_the_command(tmp_path, run_path, here, monkeypatch):
    monkeypatch.setattr(equal_bytes, "BITS", (4, 8))
    monkeypatch.setattr(equal_bytes, "CODED_BITS", (3, 8))
    monkeypatch.setattr(equal_bytes, "tune", lambda run, *_: run)  # tested above
    call = [f"--workdir={tmp_path}", "--dimensions=32", "--tuning_steps=1"]
    call += [f"--beside={run_path}", "--dataset=glyphs", "--train_examples=40"]
    equal_bytes.main([*call, "--test_examples=12", "--batch_size=8"])
    rows = json.loads((tmp_path / "equal_bytes.json").read_text())["rows"]
    names = {row["name"] for row in rows}
    assert names >= {"autoencoder-32x8", "tuned-32x4", "pca-32x8", "coded_pca-32x8"}
    assert names >= {f"float32-{run_path.name}", "float32-latents-32"}
    assert names >= {f"coded-32x{bits}" for bits in equal_bytes.CODED_BITS}
    within = [row for row in rows if "bytes" in row and row["budget"]]
    assert all(row["bytes"] <= row["budget"] for row in within) and len(within) >= 8
    assert (tmp_path / "equal_bytes.png").stat().st_size > 10_000
