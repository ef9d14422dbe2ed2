import json

import jax
import numpy as np
import pytest

from emnist_jax.config import compose, make_config
from experiments import claims, pca
from experiments.claims_models import Alternative


def test_pca_is_that_of_the_singular_value_decomposition(images):
    components = pca.fit(images, 6)
    flat = images.reshape(64, -1) / 255
    centred = flat - flat.mean(axis=0)
    u, s, v = np.linalg.svd(centred, full_matrices=False)
    best = (u[:, :6] * s[:6]) @ v[:6] + flat.mean(axis=0)
    outputs = components.decode(components.encode(images))
    np.testing.assert_allclose(outputs.reshape(64, -1), np.clip(best, 0, 1), atol=1e-5)
    np.testing.assert_allclose(
        components.encode(images / np.float32(255)),
        components.encode(images),
        atol=1e-6,
    )


def test_without_changes_the_alternative_is_the_library_s_model(images):
    model = compose.autoencoder(make_config(decoder="model01"), 0.17)
    same = Alternative("model01", model.output_bias)
    both = [jax.jit(m.init)(jax.random.key(0), images[:1]) for m in (model, same)]
    jax.tree.map(np.testing.assert_array_equal, *both)
    outputs = jax.jit(lambda v, x: [m.apply(v, x) for m in (model, same)])
    ours, theirs = map(jax.tree.leaves, outputs(both[0], images[:4]))
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("change", ["pooling", "upsampling"])
def test_alternatives_have_the_same_parameters(change, images):
    def shapes(**changes):
        model = Alternative("model02", 0.0, **changes)
        return jax.eval_shape(model.init, jax.random.key(0), images[:2])["params"]

    assert shapes(**{change: True}) == shapes()


def test_checkerboard_energy(images):
    targets = images.astype(np.float32) / 255
    noise = np.random.default_rng(0).normal(size=(256, 28, 28, 1)).astype(np.float32)
    grey = np.zeros((256, 28, 28, 1), np.uint8)
    assert claims.checkerboard(grey, noise) == pytest.approx(55 / 784, rel=0.02)
    board = np.indices((28, 28)).sum(axis=0) % 2 - 0.5
    assert claims.checkerboard(
        images, targets + 0.1 * board[None, :, :, None]
    ) == pytest.approx(1)
    smooth = np.cos(2 * np.pi * np.arange(28) / 28)[None, :, None, None]
    assert claims.checkerboard(images, targets + smooth) == pytest.approx(0, abs=1e-6)


def test_verdicts():
    def found(low, high):
        return {"difference": (low + high) / 2, "interval_95": [low, high], "n": 3}

    assert claims.verdict(found(0.1, 0.2)) == "supported"
    assert claims.verdict(found(-0.2, -0.1)) == "contradicted"
    assert claims.verdict(found(-0.1, 0.2)).startswith("not settled")
    assert claims.verdict(None) == "not enough runs"


@pytest.mark.long
def test_the_command_runs_what_is_missing(tmp_path, capsys):
    call = [f"--workdir={tmp_path}", "--seeds=1", "--steps=2", "--dataset=glyphs"]
    call += ["--train_examples=40", "--test_examples=12", "--batch_size=8"]
    claims.main(call)
    printed = capsys.readouterr().out
    assert "upsampling-seed0" in printed and "not enough runs" in printed
    summary = json.loads((tmp_path / "claims.json").read_text())
    methods = summary["denoising"]["0.2"]
    assert methods["median"]["mse"] < methods["none"]["mse"]
    claims.main(call)
    assert "-seed0" not in capsys.readouterr().out
    assert json.loads((tmp_path / "claims.json").read_text()) == summary
