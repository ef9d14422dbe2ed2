from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emnist_jax.models import decoders
from emnist_jax.models.autoencoder import INITIALIZERS, Autoencoder
from emnist_jax.models.registry import DECODERS
from emnist_jax.models.table import format_table, layer_table, total

KEY = jax.random.key(3)
IMAGES = np.zeros((1, 28, 28, 1), np.float32)


def init(**settings):
    return Autoencoder(**{"decoder_name": "model01", **settings}).init(KEY, IMAGES)


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("name", DECODERS)
def test_parameters_are_those_of_the_published_models(name):
    params = jax.eval_shape(lambda: init(decoder_name=name))["params"]
    assert count(params["encoder"]) == 494_112
    assert count(params["decoder"]) == 543_489
    for row in layer_table(Autoencoder(name)):
        assert row.parameters == count(params[row.part][row.name])


@pytest.mark.parametrize(
    "name, sizes",
    [
        ("model01", (14, 14, 28, 28)),
        ("model02", (14, 14, 14, 28)),
        ("model03", (14, 28, 28, 28)),
        ("model04", (28, 28, 28, 28)),
    ],
)
def test_decoders_upsample_where_the_published_ones_do(name, sizes):
    model = Autoencoder(name)
    _, state = jax.eval_shape(
        lambda v: model.apply(v, IMAGES, capture_intermediates=True),
        init(decoder_name=name),
    )
    outputs = state["intermediates"]["decoder"]
    layers = [f"conv_transpose{i}" for i in (1, 2, 3, 4)]
    assert tuple(outputs[x]["__call__"][0].shape[1] for x in layers) == sizes
    # Stride 2 is the only difference, so the table must say the same shapes.
    for row in layer_table(Autoencoder(name)):
        seen = state["intermediates"][row.part][row.name]["__call__"][0]
        assert seen.shape[1:] == row.output_shape


def test_multiply_adds():
    # By hand: 9 x inputs x outputs x positions, 14 x 14 or 28 x 28 of them.
    table = layer_table(Autoencoder("model04"))
    assert total(table, "multiply_adds", "encoder") == (
        9 * 32 * 784 + 9 * 32 * 64 * 196 + 2 * 9 * 64 * 64 * 196 + 12544 * 32
    )
    decoder = 32 * 12544 + 9 * 784 * (64 * 64 + 64 * 64 + 64 * 32 + 32)
    decoder += 9 * 64 * 64 * 196
    assert (
        total(layer_table(Autoencoder("model04")), "multiply_adds", "decoder")
        == decoder
    )


def test_table_prints_every_layer_and_the_totals():
    text = format_table(layer_table(Autoencoder("model03", latent_dim=16)))
    assert "conv_transpose2" in text and "stride 2" in text
    assert len(text.splitlines()) == 1 + 11 + 3


def test_encoder_starts_equal_under_all_decoders():
    trees = [init(decoder_name=name)["params"]["encoder"] for name in DECODERS]
    for tree in trees[1:]:
        jax.tree.map(np.testing.assert_array_equal, trees[0], tree)
    other = Autoencoder("model01").init(jax.random.key(4), IMAGES)["params"]["encoder"]
    assert (other["conv1"]["kernel"] != trees[0]["conv1"]["kernel"]).any()


def test_reconstruction_shapes_and_ranges():
    model = Autoencoder("model02", latent_dim=7, latent_activation="relu")
    images = np.random.default_rng(0).integers(0, 256, (3, 28, 28, 1), np.uint8)
    output = model.apply(model.init(KEY, images), images)
    assert output.images.shape == (3, 28, 28, 1) and output.latents.shape == (3, 7)
    assert (output.images > 0).all() and (output.images < 1).all()
    assert (output.latents >= 0).all()


def test_linear_latents_have_both_signs(images):
    model = Autoencoder("model01")
    latents = model.apply(model.init(KEY, IMAGES), images).latents
    assert (latents < 0).any() and (latents > 0).any()


def test_uint8_images_mean_the_same_as_unit_floats(images):
    variables = init()
    model = Autoencoder("model01")
    floats = images.astype(np.float32) / np.float32(255)
    np.testing.assert_array_equal(
        model.apply(variables, images[:2]).images,
        model.apply(variables, floats[:2]).images,
    )


def test_output_bias_sets_the_first_brightness(images):
    model = Autoencoder("model01", output_bias=float(np.log(0.17 / 0.83)))
    first = model.apply(model.init(KEY, IMAGES), images).images.mean()
    assert abs(first - 0.17) < 0.03
    plain = Autoencoder("model01")
    grey = plain.apply(plain.init(KEY, IMAGES), images).images.mean()
    assert abs(grey - 0.5) < 0.05


def test_bfloat16_computes_and_float32_stores(images):
    model = Autoencoder("model03", dtype=jnp.bfloat16)
    variables = jax.jit(model.init)(KEY, IMAGES)
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    both = model, Autoencoder("model03")
    half, full = jax.jit(lambda v, x: [m.apply(v, x) for m in both])(
        variables, images[:1]
    )
    assert half.images.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.images.astype(np.float32), full.images, atol=0.02)


@pytest.mark.parametrize("name", INITIALIZERS)
def test_initialization_is_the_named_one(name):
    kernel = init(initialization=name)["params"]["encoder"]["conv3"]["kernel"]
    fan = 9 * 64
    std = {
        "glorot_uniform": np.sqrt(2 / (fan + fan)),
        "he_uniform": np.sqrt(2 / fan),
        "lecun_normal": np.sqrt(1 / fan),
    }[name]
    np.testing.assert_allclose(kernel.std(), std, rtol=0.02)


class OneLayer(nn.Module):
    """A decoder of somebody's own: a dense layer and a plain Flax convolution."""

    kernel_init: nn.initializers.Initializer
    dtype: Any
    output_bias: float
    image_size: tuple[int, int]

    @nn.compact
    def __call__(self, latents):
        x = nn.Dense(784, kernel_init=self.kernel_init)(latents)
        x = x.reshape(len(latents), 28, 28, 1)
        return nn.sigmoid(nn.Conv(1, (5, 5), name="output")(x))


def test_a_decoder_of_ones_own_is_counted_from_itself(monkeypatch):
    monkeypatch.setattr(decoders, "OneLayer", OneLayer, raising=False)
    monkeypatch.setitem(DECODERS, "mine", ("OneLayer", {}))
    model = Autoencoder("mine", latent_dim=8)
    table = layer_table(model)
    rows = {row.name: row for row in table if row.part == "decoder"}
    assert rows["Dense_0"].parameters == 8 * 784 + 784
    assert rows["output"].kind == "Conv 5x5"
    assert rows["output"].multiply_adds == 25 * 784
    params = model.init(KEY, IMAGES)["params"]
    assert total(table, "parameters") == count(params)
