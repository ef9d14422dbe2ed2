"""What is trained in floating point counts and gives what the integer form does."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from codec_models import Network, drawn_pixels, places
from codec_models import tiny_model as make_tiny_model

from emnist_jax.codec import integer_form, model_file, quantise, values
from emnist_jax.codec.fit import PixelTraining, init_params
from emnist_jax.codec.integer_form import PixelModelConfig
from emnist_jax.codec.integer_model import IntegerModel
from emnist_jax.codec.pixel_model import PixelModel, easy_bits, hard_bits
from emnist_jax.codec.values import BIN_OF_VALUE


@functools.cache
def no_params(config):
    """Parameters of a model of that size, all 0: only their structure counts."""
    shapes = jax.eval_shape(lambda: init_params(PixelTraining(config)))
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)


@pytest.fixture(scope="module")
def tiny_model():
    return Network(make_tiny_model())


@pytest.fixture(scope="module")
def pixels(images):
    return drawn_pixels(images)


def test_training_counts_the_bits_that_steps_take(tiny_model, pixels):
    hard = pixels["hard"]
    params = quantise.dequantise(tiny_model.arrays, no_params(tiny_model.config))
    count = jax.jit(hard_bits, static_argnums=(0, 3, 4))
    expected = count(PixelModel(tiny_model.config), params, hard, True, 4)
    hidden, coarse = tiny_model.coarse(hard["context"], *places(hard))
    table, phase, _ = tiny_model.values(hidden, coarse, 4)
    span = values.spans(4).of_value[phase, hard["value"]]
    frequency = np.diff(table, axis=1, prepend=0)[np.arange(len(span)), span]
    np.testing.assert_allclose(16 - np.log2(frequency), expected, atol=0.02)


def test_rounded_training_pass_equals_the_integer_form(pixels):
    config, rng = PixelModelConfig(24, 1, 16, 8), np.random.default_rng(0)
    params = jax.tree.map(
        lambda x: rng.normal(0, 0.15, x.shape).astype(np.float32), no_params(config)
    )
    model = Network(IntegerModel(config, quantise.quantise(config, params)))
    hard = pixels["hard"]
    bins = BIN_OF_VALUE[hard["value"]]
    hidden, coarse = model.coarse(hard["context"], *places(hard))
    network = PixelModel(config)
    logits = jax.jit(
        lambda *arguments: network.apply(
            {"params": params}, *arguments, True, method="main"
        )
    )(jnp.asarray(hard["context"], jnp.float32), *places(hard), bins)
    tables = (coarse, model.fine(hidden, bins))
    for table, found in zip(tables, logits, strict=True):
        share = np.diff(table, axis=1, prepend=0) / 65536
        np.testing.assert_allclose(share, jax.nn.softmax(found), atol=1e-3)


@pytest.mark.parametrize("name", ["default", "fast", "small"])
def test_shipped_models_lose_no_percent_by_rounding(name, pixels):
    model, _, _ = model_file.load(name)
    params = quantise.dequantise(model.arrays, no_params(model.config))
    hard = pixels["hard"]
    network = PixelModel(model.config)
    bits = [
        jax.jit(hard_bits, static_argnums=(0, 3))(network, params, hard, quantise).sum()
        for quantise in (False, True)
    ]
    assert bits[1] < 1.01 * bits[0]


def test_quantise_undoes_dequantise(tiny_model):
    start = no_params(tiny_model.config)
    params = quantise.dequantise(tiny_model.arrays, start)
    again = quantise.quantise(tiny_model.config, params)
    for name, array in tiny_model.arrays.items():
        if not name.endswith((".shift", ".weight")) and name != "fine.bias":
            np.testing.assert_array_equal(again[name], array)
    for name in integer_form.layer_shapes(tiny_model.config):
        both = [
            arrays[f"{name}.weight"] / 2.0 ** arrays[f"{name}.shift"]
            for arrays in (again, tiny_model.arrays)
        ]
        np.testing.assert_array_equal(*both)


def test_a_wider_model_begins_as_the_one_it_is_made_of(tiny_model, pixels):
    small, rng = tiny_model.config, np.random.default_rng(0)
    sizes = {"width": 40, "blocks": small.blocks + 1, "fine_width": 24}
    large = dataclasses.replace(small, gate_width=small.gate_width + 8, **sizes)
    spent = []
    for config in (small, large):
        fresh = jax.tree.map(
            lambda x: rng.normal(0, 0.15, x.shape).astype(np.float32), no_params(config)
        )
        params = quantise.dequantise(tiny_model.arrays, fresh)
        for bits, kind in ((hard_bits, "hard"), (easy_bits, "easy")):
            count = jax.jit(bits, static_argnums=(0, 3))
            spent.append(count(PixelModel(config), params, pixels[kind], True))
    np.testing.assert_array_equal(spent[0], spent[2])
    np.testing.assert_array_equal(spent[1], spent[3])
