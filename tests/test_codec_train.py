"""Training of the pixel model: it learns, resumes and holds images out fairly."""

import dataclasses

import jax
import numpy as np
import pytest
from codec_models import tiny_model
from test_loop import StopAfter

from emnist_jax.cli.errors import UserError
from emnist_jax.cli.interrupts import Interrupted
from emnist_jax.codec import context, fit, model_file, quantise
from emnist_jax.codec.fit import PixelTraining, init_params
from emnist_jax.codec.integer_form import PixelModelConfig
from emnist_jax.codec.integer_model import IntegerModel
from emnist_jax.codec.pixel_model import PixelModel, bits_per_pixel
from emnist_jax.codec.sampler import PixelSampler, hold_out_distinct
from emnist_jax.codec.writer import compress

CONFIG = PixelTraining(
    PixelModelConfig(24, 1, 16, 8),
    steps=60,
    batch_size=256,
    learning_rate=0.02,
    quantise_from=0.0,
)


MODEL = PixelModel(CONFIG.model)


@pytest.fixture(scope="module")
def images(images):
    """uint8 [64, 16, 16]: the blobs without their border."""
    return images[:, 6:22, 6:22, 0]


@pytest.fixture(scope="module")
def trained(images, tmp_path_factory):
    """Parameters and figures of an unbroken training."""
    return fit.fit(CONFIG, images[:56], images[56:], tmp_path_factory.mktemp("whole"))


def test_bits_fall_and_the_file_is_as_long_as_they_say(trained, images, tmp_path):
    params, figures = trained
    judge = PixelSampler(images[56:])
    before = bits_per_pixel(MODEL, init_params(CONFIG), judge, True)
    assert figures["bpp_quantised"] < 0.6 * before
    assert figures["steps"] == 60
    arrays = quantise.quantise(CONFIG.model, params)
    model_file.save(tmp_path / "m.ejm", IntegerModel(CONFIG.model, arrays))
    size = len(compress(images[56:], model=tmp_path / "m.ejm"))
    assert 8 * (size - 60) / 8 / 256 < 1.01 * figures["bpp_quantised"]


@pytest.mark.long
def test_a_resumed_training_ends_as_an_unbroken_one(trained, images, tmp_path):
    parts = images[:56], images[56:]
    with pytest.raises(Interrupted), StopAfter(9).noted():
        fit.fit(CONFIG, *parts, tmp_path)
    again, _ = fit.fit(CONFIG, *parts, tmp_path)
    jax.tree.map(np.testing.assert_array_equal, trained[0], again)
    with pytest.raises(UserError, match="another configuration"):
        fit.fit(dataclasses.replace(CONFIG, seed=1), *parts, tmp_path)


def test_an_error_bound_changes_what_contexts_hold(images, tmp_path):
    difference = np.abs(
        fit.decoded(tiny_model(), images[56:], 3).astype(int) - images[56:]
    )
    assert 0 < difference.max() <= 3
    with pytest.raises(UserError, match="max_error=3 needs a model to start from"):
        fit.fit(dataclasses.replace(CONFIG, max_error=3), images, images, tmp_path)


@pytest.mark.long
def test_training_for_an_error_bound(images, tmp_path):
    config = dataclasses.replace(CONFIG, max_error=3, steps=20, learning_rate=0.004)
    model = tiny_model()
    start = quantise.dequantise(model.arrays, init_params(config))
    judge = PixelSampler(images[56:], fit.decoded(model, images[56:], 3))
    before = bits_per_pixel(MODEL, start, judge, True, config.max_error)
    _, figures = fit.fit(config, images[:56], images[56:], tmp_path, start)
    assert figures["bpp_quantised"] < before


def test_the_length_is_found_once(tmp_path):
    config = dataclasses.replace(CONFIG, steps=0, minutes=2)
    folder = tmp_path / "training"
    assert fit._steps(config, folder, lambda: 0.5) == 240
    assert fit._steps(config, folder, None) == 240  # not timed again


@pytest.mark.long
def test_minutes_become_steps(images, tmp_path, monkeypatch):
    monkeypatch.setattr(fit, "TIMED_STEPS", 2)
    config = dataclasses.replace(CONFIG, steps=0, minutes=1e-6)
    _, figures = fit.fit(config, images[:8], images[8:10], tmp_path)
    assert figures["steps"] == fit.EPOCHS
    monkeypatch.setattr(fit, "_seconds_a_step", None)  # not timed again
    fit.fit(config, images[:8], images[8:10], tmp_path)


@pytest.mark.parametrize("content", ["", "[]", '{"config": 1}'])
def test_a_damaged_or_foreign_training_folder(images, tmp_path, content):
    (tmp_path / "training.json").write_text(content)
    with pytest.raises(UserError, match="training.json"):
        fit.fit(CONFIG, images[:4], images[:1], tmp_path)


def test_held_out_images_are_never_trained_on(images):
    repeated = np.concatenate([images, images[::2], images[:7]])
    kept, held = hold_out_distinct(repeated, seed=0)
    together = np.concatenate([kept, held]).reshape(64, -1)
    assert len(np.unique(together, axis=0)) == 64 and len(held) == 1
    with pytest.raises(UserError, match="2 distinct"):
        hold_out_distinct(np.zeros((5, 28, 28), np.uint8), seed=0)


def test_pixels_come_with_what_lies_before_them(images):
    images = images[:3]
    padded = context.pad(images)
    image, pixel = np.array([1, 2]), np.array([5 * 16 + 8, 0])
    found = context.gather(padded, image, pixel)
    square = np.zeros((8, 15), np.uint8)
    square[2:] = images[1, :6, 1:16]  # rows above the image are 0
    np.testing.assert_array_equal(found[0], square.reshape(-1)[:112])
    assert found[0][context.WEST] == images[1, 5, 7]
    assert found[0][context.NORTH] == images[1, 4, 8]
    assert found[0][context.NORTH_EAST] == images[1, 4, 9]
    assert not found[1].any()


def test_every_pixel_is_coded_once_by_one_network(images):
    images = images[:4]
    sampler = PixelSampler(images)
    counts = {"hard": 0, "easy": 0}
    for kind, _, count in sampler.every(100):
        counts[kind] += count
    escaped = counts["hard"] + counts["easy"] - images.size
    easy = context.easy_pixels(context.pad(images))
    assert counts["easy"] == easy.sum()
    assert escaped == (easy & (images > 0)).sum()
