"""Training of the pixel model: it learns, resumes and holds images out fairly."""

import dataclasses

import jax
import numpy as np
import pytest
from codec_models import tiny_model

from emnist_jax.codec import context, fit, integer_form, model_file
from emnist_jax.codec.integer_model import IntegerModel
from emnist_jax.codec.pixel_model import PixelModelConfig
from emnist_jax.codec.train import PixelSampler, TrainConfig, init_params
from emnist_jax.codec.writer import compress
from emnist_jax.errors import UserError

CONFIG = TrainConfig(
    PixelModelConfig(24, 1, 16, 8),
    steps=60,
    batch_size=256,
    learning_rate=0.02,
    quantise_from=0.0,
)


def test_bits_fall_and_the_file_is_as_long_as_they_say(images, tmp_path):
    images = images[..., 0]
    params, figures = fit.fit(CONFIG, images[:56], images[56:], tmp_path, report=print)
    judge = PixelSampler(images[56:])
    before = fit.bits_per_pixel(CONFIG, init_params(CONFIG), judge, False)
    assert figures["bpp_quantised"] < 0.6 * before
    assert figures["steps"] == 60
    arrays = integer_form.quantise(CONFIG.model, params)
    model_file.save(tmp_path / "m.ejm", IntegerModel(CONFIG.model, arrays))
    size = len(compress(images[56:], model=tmp_path / "m.ejm"))
    assert 8 * (size - 60) / 8 / 784 < 1.01 * figures["bpp_quantised"]


def test_training_for_an_error_bound(images, tmp_path):
    images = images[..., 0]
    config = dataclasses.replace(CONFIG, max_error=3, steps=40, learning_rate=0.004)
    model = tiny_model()
    start = integer_form.dequantise(model.arrays, init_params(config))
    seen = fit.decoded(model, images[56:], 3)
    difference = np.abs(seen.astype(int) - images[56:])
    assert 0 < difference.max() <= 3
    before = fit.bits_per_pixel(config, start, PixelSampler(images[56:], seen), True)
    _, figures = fit.fit(
        config, images[:56], images[56:], tmp_path, report=print, start=start
    )
    assert figures["bpp_quantised"] < before
    with pytest.raises(UserError, match="needs --start"):
        fit.fit(config, images, images, tmp_path, report=print)


def test_a_resumed_training_ends_as_an_unbroken_one(images, tmp_path):
    images = images[:20, ..., 0]
    config = dataclasses.replace(CONFIG, steps=8)

    class Stop(Exception):
        pass

    def stop(line):
        if line["step"] == 3:
            raise Stop

    whole, _ = fit.fit(config, images, images[:4], tmp_path / "a", report=print)
    with pytest.raises(Stop):
        fit.fit(config, images, images[:4], tmp_path / "b", report=stop, save_every=0.0)
    again, _ = fit.fit(config, images, images[:4], tmp_path / "b", report=print)
    jax.tree.map(np.testing.assert_array_equal, whole, again)
    with pytest.raises(UserError, match="another configuration"):
        other = dataclasses.replace(config, seed=1)
        fit.fit(other, images, images[:4], tmp_path / "b", report=print)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 nonsense", b"x" * 100])
def test_damaged_checkpoints(images, tmp_path, content):
    (tmp_path / "pixel_model.npz").write_bytes(content)
    with pytest.raises(UserError, match="cannot resume"):
        fit.fit(CONFIG, images[:4, ..., 0], images[:1, ..., 0], tmp_path, report=print)


def test_held_out_images_are_never_trained_on(images):
    repeated = np.concatenate([images, images[::2], images[:7]])[..., 0]
    kept, held = fit.hold_out(repeated, seed=0)
    together = np.concatenate([kept, held]).reshape(64, -1)
    assert len(np.unique(together, axis=0)) == 64 and len(held) == 1
    with pytest.raises(UserError, match="2 distinct"):
        fit.hold_out(np.zeros((5, 28, 28), np.uint8), seed=0)


def test_pixels_come_with_what_lies_before_them(images):
    images = images[:3, ..., 0]
    padded = context.pad(images)
    image, pixel = np.array([1, 2]), np.array([5 * 28 + 9, 0])
    found = context.gather(padded, image, pixel)
    square = np.zeros((8, 15), np.uint8)
    square[2:] = images[1, :6, 2:17]  # rows above the image are 0
    np.testing.assert_array_equal(found[0], square.reshape(-1)[:112])
    assert found[0][context.WEST] == images[1, 5, 8]
    assert found[0][context.NORTH] == images[1, 4, 9]
    assert found[0][context.NORTH_EAST] == images[1, 4, 10]
    assert not found[1].any()


def test_every_pixel_is_coded_once_by_one_network(images):
    images = images[:4, ..., 0]
    sampler = PixelSampler(images)
    counts = {"hard": 0, "easy": 0}
    for kind, _, count in sampler.every(100):
        counts[kind] += count
    escaped = counts["hard"] + counts["easy"] - images.size
    easy = context.easy_pixels(context.pad(images))
    assert counts["easy"] == easy.sum()
    assert escaped == (easy & (images > 0)).sum()
