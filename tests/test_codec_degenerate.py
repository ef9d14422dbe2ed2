"""Blank, equal and mixed images in every mode: what is written can be read again."""

import numpy as np
import pytest
from codec_models import TINY, PoolingAutoencoder, golden_images
from hypothesis import example, given, settings
from hypothesis import strategies as st

from emnist_jax import codec
from emnist_jax.cli.errors import UserError
from emnist_jax.codec import blocks, container

SETTINGS = settings(derandomize=True, deadline=None, max_examples=6)
MODES = {
    "lossless": {"model": TINY},
    "near-lossless": {"model": TINY, "max_error": 3},
    "lossy": {"model": TINY, "mse": 0.003},
    "latent": {"run": PoolingAutoencoder(), "bits": 3},
}
DIGITS = golden_images()
KINDS = ("blank", "white", "equal", "two values", "noise", "digits")


def runs(longest):
    one = st.tuples(st.sampled_from(KINDS), st.integers(1, longest))
    return st.lists(one, min_size=1, max_size=3)


def some(kind, count, rng):
    """uint8 [count, 28, 28] of one kind."""
    if kind in ("noise", "two values"):
        noise = rng.integers(0, 256, (count, 28, 28)).astype(np.uint8)
        return noise if kind == "noise" else noise // 128 * 100
    one = {"blank": 0, "white": 255, "equal": DIGITS[7], "digits": DIGITS}[kind]
    return np.resize(one, (count, 28, 28)).astype(np.uint8)


def round_trip(mode, images, block_images):
    options = MODES[mode]
    content = codec.compress(images, mode=mode, block_images=block_images, **options)
    model, run = (options.get(name) for name in ("model", "run"))
    return codec.decompress(content, model=model, run=run)


@SETTINGS
@given(runs(700), st.integers(1, 2000))
@example([("blank", 21)], 1024)
@example([("blank", 22)], 1024)
@example([("blank", 31)], 1024)
@example([("equal", 200)], 1024)
@example([("white", 1024)], 1024)
@example([("blank", 2000)], 2000)
@example([("digits", 100), ("blank", 2000)], 1024)
def test_latents(parts, block_images):
    rng = np.random.default_rng(0)
    images = np.concatenate([some(kind, count, rng) for kind, count in parts])
    found = round_trip("latent", images, block_images)
    assert found.shape == images.shape
    if len({kind for kind, _ in parts} & {"blank", "white"}) == len(parts) == 1:
        np.testing.assert_array_equal(found, images)  # a constant is one level


@SETTINGS
@given(
    st.sampled_from(["lossless", "near-lossless", "lossy"]),
    runs(20),
    st.integers(1, 4),
    st.integers(1, 5),
    st.integers(1, 2000),
)
@example("lossless", [("blank", 31)], 28, 28, 1024)
@example("lossless", [("blank", 2000)], 2, 3, 2000)
@example("near-lossless", [("noise", 20), ("blank", 1980)], 2, 3, 1024)
@example("near-lossless", [("equal", 1)], 1, 1, 1)
@example("lossy", [("noise", 20), ("blank", 30)], 2, 3, 1024)
@example("lossy", [("white", 1)], 28, 28, 1)
def test_pixels(mode, parts, height, width, block_images):
    rng = np.random.default_rng(0)
    images = np.concatenate([some(kind, count, rng) for kind, count in parts])
    images = images[:, 12 : 12 + height, 12 : 12 + width] if height < 28 else images
    found = round_trip(mode, images, block_images)
    assert found.shape == images.shape
    difference = np.abs(found.astype(int) - images)
    if mode == "lossy":
        assert (difference**2).mean() <= 0.003 * 255**2
    else:
        assert difference.max() <= MODES[mode].get("max_error", 0)


@pytest.mark.parametrize("mode", ["lossless", "near-lossless"])
@pytest.mark.parametrize("shape", [(2, 1, 65536), (1, 129, 128), (3, 300, 1)])
def test_odd_sizes(mode, shape):
    images = np.resize(DIGITS, shape)
    found = round_trip(mode, images, 1024)
    assert np.abs(found.astype(int) - images).max() <= MODES[mode].get("max_error", 0)


def test_a_deflated_form_that_errs_is_not_kept(monkeypatch):
    right = blocks.zlib.compress
    monkeypatch.setattr(blocks.zlib, "compress", lambda c, _: right(bytes(len(c))))
    monkeypatch.setattr(container, "MOST_CODED_PIXELS", 0)  # nor a coded one
    np.testing.assert_array_equal(round_trip("lossless", DIGITS[:2], 2), DIGITS[:2])


def test_what_stands_before_the_blocks_is_read_back(monkeypatch):
    right = container.pack

    def wrong(head, entries):
        return right(head, [(kind, length + 1, crc) for kind, length, crc in entries])

    monkeypatch.setattr(container, "pack", wrong)
    with pytest.raises(UserError, match="should have"):
        codec.compress(DIGITS[:2], model=TINY)


@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
def test_latents_that_are_not_finite(value):
    class Wild(PoolingAutoencoder):
        def encode(self, images):
            latents = super().encode(images)
            latents[0, 3], latents[1, 3] = value, -value
            return latents

    with pytest.raises(UserError, match="not finite"):
        codec.compress(DIGITS, mode="latent", run=Wild())


def test_images_too_large_to_code_are_never_coded():
    head = container.Head(container.LOSSLESS, b"abcd", 1, 2048, 2048, 1)
    content = container.pack(head, [(container.CODED, 1024, 0)]) + bytes(1024)
    with pytest.raises(UserError, match="too large to code"):
        codec.decompress(content, model=TINY)
