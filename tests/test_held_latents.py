"""Latents taken away and given back, and what the study makes of the runs."""

import functools

import jax
import numpy as np
import pytest

from emnist_jax.config import compose, make_config
from emnist_jax.devices import parallel
from emnist_jax.models.autoencoder import Autoencoder
from emnist_jax.storage import files
from experiments import held_latents


def _model(held: int, **changes) -> held_latents.HeldAutoencoder:
    plain = compose.autoencoder(make_config(decoder="model02", **changes))
    fields = {name: getattr(plain, name) for name in Autoencoder.__annotations__}
    return held_latents.HeldAutoencoder(**fields, held=held)


def test_held_latents_are_zero_and_get_no_gradient(images):
    model = _model(5)
    params = jax.jit(model.init)(jax.random.key(0), images[:2])["params"]

    def loss(params):
        made = model.apply({"params": params}, images[:8])
        return made.images.mean(), made.latents

    gradient, latents = jax.jit(jax.grad(loss, has_aux=True))(params)
    assert (latents[:, :5] == 0).all() and (np.ptp(latents[:, 5:], axis=0) > 0).all()
    kernel = gradient["encoder"]["latent"]["kernel"]
    assert (kernel[:, :5] == 0).all() and (kernel[:, 5:] != 0).any(axis=0).all()


@pytest.mark.parametrize("dead", [[], [0], [3, 4, 31], list(range(1, 32))])
def test_revival_makes_every_latent_live_and_changes_no_output(dead, images):
    config = make_config(decoder="model02", preset="published")
    model = _model(0, preset="published")
    state = compose.first_state(config, model, compose.optimizer(config, 9))
    bias = np.full(32, 10, np.float32)  # far from dying
    bias[dead] = -10
    state.params["encoder"]["latent"]["bias"] = bias
    ones = jax.tree.map(lambda leaf: leaf + np.ones((), leaf.dtype), state.opt_state)
    state = state.replace(opt_state=ones)

    @functools.partial(jax.pmap, axis_name=parallel.AXIS)
    def both(state, images):
        before = model.apply({"params": state.params}, images)
        state = held_latents.revive(state, before.latents)
        return before, model.apply({"params": state.params}, images), state

    add = functools.partial(jax.tree.map, lambda leaf: np.asarray(leaf)[None])
    before, after, changed = both(add(state), images[None, :16])
    assert (np.ptp(before.latents[0], axis=0) == 0).sum() == len(dead)
    assert (np.ptp(after.latents[0], axis=0) > 0).all()
    np.testing.assert_allclose(after.images, before.images, atol=2e-5)
    dense = np.asarray(changed.params["decoder"]["dense"]["kernel"][0])
    assert len(np.unique(dense, axis=0)) == 32  # no two of them learn the same
    jax.tree.map(np.testing.assert_array_equal, add(ones), changed.opt_state)


def test_the_table():
    def row(variant, active, mse, seed=0):
        names = {"preset": "published", "decoder": "model01", "variant": variant}
        return names | {"seed": seed, "active_latents": active, "mse": mse, "ssim": 0.9}

    rows = [row(f"{k} held", 32 - k, 0.004 * 1.05**k) for k in (0, 4, 8, 12)]
    rows.append({**row("16 held", 0, 0), "failed": "training is dead"})
    text = held_latents.format_markdown(held_latents.summarise(rows))
    assert "| published | 4 held | 1 | 0 | 28.0 | 0.00486 | 1.216 | 0.9000 |" in text
    assert "| published | 16 held | 0 | 1 | - | - | - | - |" in text
    assert "multiplies the MSE by 1.050 (95% interval 1.050 to 1.050, 4 runs)" in text


@pytest.mark.long
def test_the_command(tmp_path, monkeypatch):
    monkeypatch.setattr(held_latents, "REVIVAL", 2)
    variants = {"published": ["0 held", "revived", "linear", "24 held"]}
    monkeypatch.setattr(held_latents, "VARIANTS", variants)
    call = [f"--workdir={tmp_path}", "--dataset=glyphs", "--steps=5"]
    call += ["--train_examples=80", "--test_examples=20", "--batch_size=16"]
    held_latents.main(call)
    rows = files.read_json(tmp_path / "held_latents.json")["rows"]
    active = {row["variant"]: row["active_latents"] for row in rows}
    assert active["linear"] == 32 and active["24 held"] <= 8
    assert (tmp_path / "held_latents.png").stat().st_size > 5000
    monkeypatch.setattr(held_latents, "train", None)  # nothing is trained again
    held_latents.main([*call, "--noruns"])
    with pytest.raises(ValueError, match="was made with steps 5, not 6"):
        held_latents.main([*call, "--steps=6"])
