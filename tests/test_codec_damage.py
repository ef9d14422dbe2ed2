"""Damaged, hostile and foreign files: one clear error, never wrong pixels."""

import dataclasses
import zlib

import numpy as np
import pytest
from codec_models import TINY, PoolingAutoencoder, golden_contents, golden_images
from hypothesis import example, given, settings
from hypothesis import strategies as st

from emnist_jax import codec
from emnist_jax.cli.errors import UserError
from emnist_jax.codec import container, model_file

SETTINGS = settings(derandomize=True, deadline=None, max_examples=150)
HEAD = container.Head(
    mode=container.LOSSLESS,
    digest=b"abcd",
    images=70,
    height=28,
    width=28,
    block_images=30,
)


@pytest.fixture(scope="module")
def contents():
    """A file of each mode and what it decodes to."""
    made = golden_contents(golden_images()[:, 8:18, 8:18])
    run = PoolingAutoencoder()
    return [(content, codec.decompress(content, run=run)) for content in made.values()]


def check(damaged, pixels):
    """Either the right pixels or a one-line error."""
    try:
        found = codec.decompress(damaged, run=PoolingAutoencoder())
    except UserError as error:
        assert "\n" not in str(error) and len(str(error)) < 300
    else:
        np.testing.assert_array_equal(found, pixels)


def test_latents_of_images_of_another_size(contents):
    parsed = [(container.parse(c, len(c), "x"), c) for c, _ in contents]
    head, content = next(p for p in parsed if p[0].mode == container.LATENT)
    other = dataclasses.replace(head, height=2 * head.height, blocks=())
    entries = [(block.kind, block.length, block.checksum) for block in head.blocks]
    changed = container.pack(other, entries) + content[head.end :]
    with pytest.raises(UserError, match="run's are of"):
        codec.decompress(changed, run=PoolingAutoencoder())


@SETTINGS
@given(st.data())
def test_mutations(contents, data):
    content, pixels = data.draw(st.sampled_from(contents))
    damaged = bytearray(content)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(
            st.one_of(st.integers(0, 60), st.integers(0, len(damaged) - 1)),
            label="position",
        )
        damaged[at] ^= data.draw(st.integers(1, 255), label="flip")
    check(bytes(damaged), pixels)


@SETTINGS
@given(st.data())
def test_truncations(contents, data):
    content, _ = data.draw(st.sampled_from(contents))
    kept = data.draw(st.one_of(st.integers(0, 80), st.integers(0, len(content) - 1)))
    with pytest.raises(UserError):
        codec.decompress(content[:kept], run=PoolingAutoencoder())
    with pytest.raises(UserError):
        codec.decompress(content + content[:kept] + b"x", run=PoolingAutoencoder())


@SETTINGS
@given(st.binary(max_size=200))
@example(b"")
@example(b"EJX2" + bytes(40))
@example(b"EJX3" + bytes(40))
@example(b"\x89PNG\r\n\x1a\n")
def test_foreign_files(content):
    with pytest.raises(UserError):
        codec.decompress(content)


def resealed(head, entries, payload=b""):
    return container.pack(head, entries) + payload


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"images": 1 << 60}, "index cannot fit"),
        ({"height": 0}, "impossible image size"),
        ({"width": 1 << 30}, "impossible image size"),
        ({"block_images": 0}, "impossible images a block"),
        ({"block_images": 1 << 20}, "impossible images a block"),
        ({"mode": 5}, "mode 5 is unknown"),
        ({"mode": container.NEAR_LOSSLESS, "parameter": 200}, "error bound"),
        ({"mode": container.LATENT, "parameter": 9}, "bits of a latent"),
    ],
)
def test_hostile_heads_with_right_checksums(change, problem):
    entries = [(container.CODED, 500, 0)] * 3
    content = resealed(dataclasses.replace(HEAD, **change), entries, bytes(1500))
    with pytest.raises(UserError, match=problem):
        codec.decompress(content)


@pytest.mark.parametrize(
    ("entries", "problem"),
    [
        ([(container.RAW, 500, 0)] * 3, "raw block is of the wrong length"),
        ([(container.CODED, 5, 0)] * 3, "too short for its images"),
        ([(container.CODED, 500, 0)] * 3, "it should have"),
        ([(container.CODED, 1 << 50, 0)] * 3, "it should have"),
    ],
)
def test_hostile_indices_with_right_checksums(entries, problem):
    with pytest.raises(UserError, match=problem):
        codec.decompress(resealed(HEAD, entries, bytes(7)))


def one_block(kind, payload):
    digest = model_file.load(TINY)[1]
    head = dataclasses.replace(HEAD, images=30, digest=digest)
    return resealed(head, [(kind, len(payload), 0)], payload)


@pytest.mark.parametrize(
    ("kind", "payload", "problem"),
    [
        (container.DEFLATED, zlib.compress(bytes(10**7)), "another number of pixels"),
        (container.DEFLATED, zlib.compress(bytes(30)), "too short|another number"),
        (container.DEFLATED, bytes(400), "incorrect header|unknown compression"),
        (container.RAW, bytes(30 * 784), "fail their checksum"),
        (container.CODED, bytes(400), "a state is out of range"),
        (container.CODED, bytes(401), "too short for its lanes"),
        (container.CODED, b"\xff" * 400, "ends too early|not end|checksum"),
    ],
)
def test_hostile_blocks(kind, payload, problem):
    with pytest.raises(UserError, match=problem):
        codec.decompress(one_block(kind, payload), model=TINY)


@SETTINGS
@given(st.data())
def test_damaged_models(data):
    with open(TINY, "rb") as file:
        content = bytearray(file.read())
    at = data.draw(st.one_of(st.integers(0, 20), st.integers(0, len(content) - 1)))
    content[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(UserError):
        model_file.from_bytes(bytes(content), "the model")


def test_heads_come_back():
    for head in (
        HEAD,
        dataclasses.replace(HEAD, trailing_axis=True, model_length=9),
        dataclasses.replace(HEAD, mode=container.NEAR_LOSSLESS, parameter=3),
    ):
        entries = [(container.CODED, 100 + i, 2**32 - 1 - i) for i in range(3)]
        content = container.pack(head, entries) + bytes(303 + head.model_length)
        found = container.parse(content, len(content), "x")
        assert dataclasses.replace(found, blocks=(), end=0) == head
        assert [(b.kind, b.length, b.checksum) for b in found.blocks] == entries
        assert [(b.first, b.images) for b in found.blocks] == [
            (0, 30),
            (30, 30),
            (60, 10),
        ]
        assert found.blocks[0].offset == len(content) - 303


def test_the_head_of_a_known_file():
    # The vector of docs/codec_format.md.
    entries = [(container.CODED, 100, 0x01020304), (container.RAW, 784, 5)]
    head = dataclasses.replace(HEAD, images=2, block_images=1)
    assert container.pack(head, entries).hex() == (
        "454a58310061626364021c1c01920304030201c01805000000c7a8f6e7"
    )


def test_varints():
    assert container.write_varint(0) == b"\0"
    assert container.write_varint(300) == b"\xac\x02"


def test_golden_images_never_change():
    assert zlib.crc32(golden_images().tobytes()) == 0x98730C2C
