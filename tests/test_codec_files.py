"""Compressed files: everything comes back, in little space, piece by piece."""

import hashlib
import json
import zlib

import numpy as np
import pytest
from codec_models import (
    GOLDEN,
    TINY,
    PoolingAutoencoder,
    golden_contents,
    golden_images,
    strokes,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from emnist_jax import codec
from emnist_jax.cli.errors import UserError
from emnist_jax.codec import blocks, container, model_file, values

SETTINGS = settings(derandomize=True, deadline=None, max_examples=25)


@pytest.fixture
def model():
    return TINY


@pytest.fixture(scope="module")
def images(images):
    """uint8 [64, 10, 10, 1]: the middle of the blobs, quickly coded."""
    return images[:, 9:19, 9:19]


def random_images(seed, count, height, width):
    rng = np.random.default_rng(seed)
    kinds = rng.integers(0, 4, (count, 1, 1))
    noise = rng.integers(0, 256, (count, height, width))
    smooth = np.minimum(noise.cumsum(axis=2) // 9, 255)
    flat = np.broadcast_to(noise[:, :1, :1], noise.shape)
    chosen = np.select([kinds == 0, kinds == 1, kinds == 2], [noise, smooth, flat], 0)
    return chosen.astype(np.uint8)


@SETTINGS
@given(
    st.integers(0, 2**32),
    st.integers(0, 6),
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(1, 4),
    st.sampled_from([0, 0, 1, 5, 127]),
)
def test_round_trip(seed, count, height, width, block_images, max_error):
    model, images = TINY, random_images(seed, count, height, width)
    mode = {"mode": "near-lossless", "max_error": max_error} if max_error else {}
    content = codec.compress(images, model=model, block_images=block_images, **mode)
    found = codec.decompress(content, model=model)
    assert found.dtype == np.uint8 and found.shape == images.shape
    difference = np.abs(found.astype(int) - images).max(initial=0)
    assert difference <= max_error


def test_shapes_with_and_without_the_last_axis(images, model):
    for part in (images[:3], images[:3, ..., 0]):
        found = codec.decompress(codec.compress(part, model=model), model=model)
        np.testing.assert_array_equal(found, part)


@pytest.mark.parametrize(
    ("name", "max_error"),
    [
        *(("default", 0), ("fast", 0), ("small", 0)),
        *(("near", 1), ("near4", 4), ("near4", 6), ("coarse", 7)),
    ],
)
def test_shipped_models_compress_handwriting(name, max_error):
    images = strokes(16)
    mode = "near-lossless" if max_error else "lossless"
    # The others are chosen by themselves.
    model = name if name in ("fast", "small") else None
    content = codec.compress(images, mode=mode, max_error=max_error, model=model)
    head = container.parse(content, len(content), name)
    assert head.digest == model_file.load(name)[1]
    rounded = values.rounded(images, max_error)
    assert len(content) < 0.7 * len(zlib.compress(rounded.tobytes(), 9))


@pytest.mark.parametrize(
    "mode",
    [
        *(*container.MODES, "latent-turned", "version-2"),
        *("lossy-1", *model_file.EARLIER),  # as the encoder, or models, were before
    ],
)
def test_golden_files_decode_forever(mode):
    content = (GOLDEN / f"codec_{mode}.ejx").read_bytes()
    facts = json.loads((GOLDEN / "codec.json").read_text())[mode]
    assert hashlib.sha256(content).hexdigest() == facts["file"]
    run = PoolingAutoencoder() if mode.startswith("latent") else None
    found = codec.decompress(content, run=run)
    assert hashlib.sha256(found.tobytes()).hexdigest() == facts["pixels"]
    if mode == "lossless":
        np.testing.assert_array_equal(found, golden_images())
    if mode == "version-2":
        np.testing.assert_array_equal(found, ~golden_images())
        opened = codec.CompressedImages(content, mode)
        assert opened.labels.tolist() == [i % 7 - 1 for i in range(40)]
        assert opened.names == [f"{i % 3}/{i}.png" for i in range(40)]


def test_encoding_gives_the_golden_streams():
    for mode, content in golden_contents().items():
        if mode == "latent-turned":
            continue  # its basis is floating point
        golden = (GOLDEN / f"codec_{mode}.ejx").read_bytes()
        heads = [container.parse(c, len(c), mode) for c in (content, golden)]
        for ours, theirs in zip(*(head.blocks for head in heads), strict=True):
            # bzip2 came later.
            assert ours.kind in (theirs.kind, container.BZIPPED)
            if theirs.kind == container.CODED:  # other zlibs may deflate otherwise
                streams = (
                    content[ours.offset : ours.offset + ours.length],
                    golden[theirs.offset : theirs.offset + theirs.length],
                )
                assert streams[0] == streams[1]
        assert container.CODED in [block.kind for block in heads[1].blocks]


def test_unseen_images_never_grow_much():
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:28, :28]
    photo = 128 + 60 * np.sin(x / 5) + 40 * np.cos(y / 3) + rng.normal(0, 6, (28, 28))
    cases = {
        "noise": rng.integers(0, 256, (30, 14, 14)),
        "black": np.zeros((30, 14, 14)),
        "white": np.full((30, 14, 14), 255),
        "photo": np.clip([np.roll(photo, i)[:14, :14] for i in range(30)], 0, 255),
        "one noise": rng.integers(0, 256, (1, 28, 28)),
    }
    for name, images in cases.items():
        images = images.astype(np.uint8)
        content = codec.compress(images, model=TINY)
        assert len(content) <= 1.01 * images.size + 64, name
        found = codec.decompress(content, model=TINY)
        np.testing.assert_array_equal(found, images)


def test_images_alone_are_small(images):
    assert len(codec.compress(images[:1] * 0)) < 40  # head, index and checksum


def test_large_images_are_not_coded(model):
    image = np.tile(np.arange(200, dtype=np.uint8), (1, 200, 1))
    content = codec.compress(image, model=model)
    head = container.parse(content, len(content), "x")
    assert [block.kind for block in head.blocks] == [container.BZIPPED]
    np.testing.assert_array_equal(codec.decompress(content, model=model), image)


def test_no_images(model):
    empty = np.zeros((0, 28, 28), np.uint8)
    found = codec.decompress(codec.compress(empty, model=model), model=model)
    assert found.shape == empty.shape


def test_an_encoder_that_errs_stores_blocks_otherwise(images, model, monkeypatch):
    right = blocks.PixelCoder.decode

    def wrong(self, streams, counts, report):
        found = right(self, streams, counts, report)
        found[0][0, 0, 0] += 1
        return found

    monkeypatch.setattr(blocks.PixelCoder, "decode", wrong)
    content = codec.compress(images[:8], model=model, block_images=2)
    monkeypatch.undo()
    head = container.parse(content, len(content), "x")
    kinds = [block.kind for block in head.blocks]  # coded in two groups of two
    assert [kind == container.CODED for kind in kinds] == [False, True] * 2
    found = codec.decompress(content, model=model)
    np.testing.assert_array_equal(found, images[:8])


def test_reading_touches_only_the_blocks_it_needs(images, model, tmp_path):
    path = tmp_path / "images.ejx"
    head = codec.compress_file(path, images[:30], model=model, block_images=10)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1  # the last block is damaged, and nobody notices
    path.write_bytes(content)
    with codec.open(path, model=model) as opened:
        assert len(opened) == 30 and opened.shape == (30, 10, 10, 1)
        np.testing.assert_array_equal(opened[7], images[7])
        np.testing.assert_array_equal(opened[-11], images[19])
        np.testing.assert_array_equal(opened[8:17], images[8:17])
        np.testing.assert_array_equal(opened[8:17:3], images[8:17:3])
        assert opened[5:5].shape == (0, 10, 10, 1)
        with pytest.raises(IndexError):
            opened[30]
        with pytest.raises(UserError, match="damaged among images 20 to 29"):
            opened[20]
    assert head.block_images == 10


def test_an_embedded_model_needs_no_other(images, model):
    content = codec.compress(images[:3], model=model, embed_model=True)
    np.testing.assert_array_equal(codec.decompress(content), images[:3])
    with pytest.raises(UserError, match="does not ship"):
        codec.decompress(codec.compress(images[:3], model=model))


def test_the_wrong_model_is_refused(images, model):
    with pytest.raises(UserError, match="was made with"):
        codec.decompress(codec.compress(images[:2], model="fast"), model=model)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"mode": "smooth"}, "^mode=smooth is unknown"),
        ({"mode": 0}, "^mode=0 is unknown"),
        ({"mode": "near-lossless"}, "^max_error=0 is out of range"),
        ({"mode": "near-lossless", "max_error": 1.5}, "^max_error=1.5 .* whole number"),
        ({"max_error": "1"}, "^max_error=1 is out of range"),
        ({"max_error": 2}, "^max_error=2 needs mode=near-lossless"),
        ({"model": "/nowhere"}, "^model=/nowhere"),
        ({"model": 5}, "^model=5"),
        ({"model": "a\0b"}, "^model=a"),
        ({"model": "/dev/zero"}, "^model=/dev/zero: Not a regular file"),
        ({"block_images": 0}, "^block_images=0"),
        ({"block_images": "x"}, "^block_images=x"),
        ({"bits": 2.0}, "^bits=2.0"),
        ({"mode": "latent"}, "^mode=latent needs run"),
        ({"mode": "latent", "run": "runs/a"}, "^run=runs/a is no run"),
    ],
)
def test_wrong_options(images, options, problem):
    with pytest.raises(UserError, match=problem):
        codec.compress(images, **options)


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((2, 28, 28)),
        np.zeros((28, 28), "u1"),
        np.zeros((2, 0, 5), "u1"),
        [[[0, 256]]],
        [[1], [1, 2]],
        [],
        None,
        "images.npy",
    ],
)
def test_wrong_images(wrong):
    with pytest.raises(UserError, match="^images.*(type|shape|no array)"):
        codec.compress(wrong)


def test_a_list_of_images(model):
    images = list(golden_images()[:2])
    content = codec.compress(images, model=model, max_error=np.int64(0))
    np.testing.assert_array_equal(codec.decompress(content, model=model), images)


@pytest.mark.parametrize("wrong", ["a.ejx", None, 5])
def test_wrong_contents(wrong):
    with pytest.raises(UserError, match="^content is (str|NoneType|int): give bytes"):
        codec.decompress(wrong)


@pytest.mark.parametrize("wrong", [None, 5, "a\0b"])
def test_wrong_paths(wrong):
    with pytest.raises(UserError, match="^cannot read"):
        codec.open(wrong)


def test_latent_files_of_another_run():
    run, other = PoolingAutoencoder(), PoolingAutoencoder()
    content = codec.compress(golden_images()[:2], mode="latent", run=run)
    other.decoder = (None, {"weights": np.full(1, 1 / 48, np.float32)})
    with pytest.raises(UserError, match="another autoencoder"):
        codec.decompress(content, run=other)


@pytest.mark.parametrize("bits", [0, 9])
def test_latent_bits_out_of_range(bits):
    run = PoolingAutoencoder()
    with pytest.raises(UserError, match=f"^bits={bits}"):
        codec.compress(golden_images(), mode="latent", run=run, bits=bits)
