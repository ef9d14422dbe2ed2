"""Lossy files: as large, or as wrong, as was asked for."""

import numpy as np
import pytest
from codec_models import TINY, golden_images, strokes

from emnist_jax import codec
from emnist_jax.cli.errors import UserError
from emnist_jax.codec import container, lossy


def made(images, **target):
    """Head, bytes an image and mean squared error of a lossy file."""
    content = codec.compress(images, mode="lossy", **target)
    head = container.parse(content, len(content), "a file")
    found = codec.decompress(content)
    error = np.square(found.astype(int) - images).mean() / 255**2
    return head, len(content) / len(images), error


def test_an_error_is_kept_and_costs_as_little_as_it_may():
    images, sizes = strokes(32), []
    for wanted in (0.0001, 0.0003, 0.001):
        head, size, error = made(images, mse=wanted)
        assert container.MODES[head.mode] == "lossy"
        assert all(block.kind == container.CODED for block in head.blocks)
        assert 0.6 * wanted < error <= wanted
        sizes.append(size)
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] < 0.6 * len(codec.compress(images)) / len(images)


def test_the_best_step_on_the_way_is_taken():
    """Where coarser steps take more bytes, or finer ones are further off."""

    def smallest(step):
        return (10 if step < 5 else 20), 0.01

    def closest(step):
        return 10, (0.1 if step < 5 else 0.01)

    assert lossy.search(smallest, 0.5, None, (1, 60), ("", "")) < 5
    assert lossy.search(closest, None, 15, (1, 60), ("", "")) >= 5


def test_a_size_is_kept_and_used():
    images, errors = strokes(32), []
    for wanted in (40, 30, 25):
        _, size, error = made(images, bytes_per_image=wanted)
        assert 0.75 * wanted < size <= wanted + 1  # and a head
        errors.append(error)
    assert errors == sorted(errors)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "^mode=lossy needs one target"),
        ({"mse": 0.1, "bytes_per_image": 9}, "^mode=lossy needs one target"),
        ({"mse": 0}, "^mse=0 is out of range"),
        ({"mse": float("nan")}, "^mse=nan is out of range"),
        ({"bytes_per_image": -1}, "^bytes=-1 is out of range"),
        ({"mse": "small"}, "^mse='small': give a number"),
        ({"mse": 0.1, "mode": "lossless"}, "^mse=0.1 needs mode=lossy"),
        ({"mse": 0.1, "max_error": 3}, "^max_error=3 needs mode=near-lossless"),
        ({"mse": 1e-9}, "^mse=1e-09: the finest such file leaves .* lossless"),
        ({"bytes_per_image": 0.5}, "^bytes=0.5: the coarsest such file takes"),
    ],
)
def test_targets_that_cannot_be(options, message):
    options = {"mode": "lossy", "model": TINY} | options
    with pytest.raises(UserError, match=message):
        codec.compress(golden_images()[:9], **options)


def test_other_forms_keep_the_error_too():
    """Noise, which the model does not fit: what bzip2 packs is what was measured."""
    noise = np.random.default_rng(0).integers(0, 2, (40, 12, 12)).astype(np.uint8) * 99
    head, _, error = made(noise, mse=0.0005)
    assert {block.kind for block in head.blocks} != {container.CODED}
    assert error <= 0.0005


def test_images_too_large_to_code():
    with pytest.raises(UserError, match="^mode=lossy: images of over 16384 pixels"):
        codec.compress(np.zeros((1, 200, 200), np.uint8), mode="lossy", mse=0.01)


def test_no_images():
    content = codec.compress(golden_images()[:0], mode="lossy", model=TINY, mse=0.01)
    assert codec.decompress(content, model=TINY).shape == (0, 28, 28)


def test_only_version_2_has_lossy_files():
    head = container.Head(container.LOSSY, b"abcd", 0, 2, 2, 1, parameter=5)
    content = bytearray(container.pack(head, []))
    assert content[:4] == container.MAGICS[1]
    assert container.parse(content, len(content), "it").parameter == 5
    content = container.MAGICS[0] + content[4:5] + content[6:]  # without features
    with pytest.raises(UserError, match="mode 3 is unknown"):
        container.parse(content, len(content), "it")
