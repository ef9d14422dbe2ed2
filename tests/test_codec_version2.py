"""What files keep since version 2 of the format: bzip2, inversion, labels, names."""

import bz2
import zlib

import numpy as np
import pytest
from codec_models import TINY, PoolingAutoencoder, golden_images

from emnist_jax import codec
from emnist_jax.cli.errors import UserError
from emnist_jax.codec import blocks, container, model_file, notes

IMAGES = golden_images()[:12, 4:16, 4:16]
DIGEST = model_file.load(TINY)[1]
NAMES = [f"{i % 3}/{i}.png" for i in range(12)]


def parse(content):
    return container.parse(content, len(content), "x")


def kinds(content):
    return {block.kind for block in parse(content).blocks}


def test_files_without_new_features_stay_version_1():
    content = codec.compress(IMAGES, model=TINY)
    assert content[:4] == b"EJX1" and kinds(content) == {container.CODED}


@pytest.mark.parametrize("slope", [False, True])
def test_blocks_that_no_model_codes_are_bzipped(slope):
    rng = np.random.default_rng(0)
    if slope:  # where differences of rows pay
        images = np.add.outer(np.arange(0, 256, 2), rng.integers(0, 256, 256))
        images = images[None]
    else:
        images = rng.choice([3, 90, 150, 211], (1, 128, 256), p=[0.7, 0.1, 0.1, 0.1])
    images = images.astype(np.uint8)
    content = codec.compress(images, model=TINY)
    head = parse(content)
    assert content[:4] == b"EJX2" and kinds(content) == {container.BZIPPED}
    assert content[head.blocks[0].offset] == slope
    assert len(content) < len(zlib.compress(images, 9))
    np.testing.assert_array_equal(codec.decompress(content, model=TINY), images)


@pytest.mark.parametrize(
    ("payload", "problem"),
    [
        (b"\0" + bz2.compress(bytes(10**6)), "another number"),
        (b"\0" + bz2.compress(bytes(99)), "another number"),
        (b"\0" + bz2.compress(bytes(1440))[:-1], "another number"),
        (b"\0" + bz2.compress(bytes(1440)) + b"x", "another number"),
        (b"\0" + bytes(99), "Invalid data"),
        (b"\2" + bz2.compress(bytes(1440)), "first byte is unknown"),
        (b"\0" + bz2.compress(bytes(1440)), "fail their checksum"),
        (b"", "too short for its images"),
    ],
)
def test_hostile_bzipped_blocks(payload, problem):
    head = container.Head(container.LOSSLESS, DIGEST, 10, 12, 12, 10)
    entries = [(container.BZIPPED, len(payload), 0)]
    content = container.pack(head, entries) + payload
    with pytest.raises(UserError, match=problem):
        codec.decompress(content, model=TINY)


def test_levels_have_no_rows_to_subtract():
    with pytest.raises(ValueError, match="first byte"):
        blocks._bunzip(b"\1" + bz2.compress(bytes(10)), (5, 2))


def test_bzip2_is_unknown_in_version_1():
    head = container.Head(container.LOSSLESS, DIGEST, 10, 12, 12, 10)
    content = bytearray(container.pack(head, [(container.RAW, 1440, 0)])[:-4])
    content[-6] |= container.BZIPPED
    content += zlib.crc32(content).to_bytes(4, "little") + bytes(1440)
    with pytest.raises(UserError, match="unknown kind"):
        codec.decompress(bytes(content), model=TINY)


@pytest.mark.parametrize("mode", container.MODES)
def test_inverted_images_come_back_as_they_were(mode):
    images = golden_images()[:2] if mode == "latent" else IMAGES[:2]
    options = {"mode": mode, "model": TINY, "max_error": 3 * (mode == "near-lossless")}
    options |= {"mse": 0.01} if mode == "lossy" else {}
    run = PoolingAutoencoder() if mode == "latent" else None
    plain = codec.compress(images, run=run, **options)
    content = codec.compress(~images, run=run, invert=True, **options)
    opened = codec.CompressedImages(content, "x", model=TINY, run=run)
    start = parse(content).end - parse(plain).end
    assert content[start + parse(plain).end :] == plain[parse(plain).end :]
    expected = ~codec.decompress(plain, model=TINY, run=run)
    np.testing.assert_array_equal(opened.read(), expected)
    np.testing.assert_array_equal(opened[1], expected[1])
    assert mode != "lossless" or (expected == ~images).all()


@pytest.mark.parametrize("largest", [0, 127, 128, 1 << 15, 1 << 40])
@pytest.mark.parametrize("names", [NAMES, None])
def test_labels_and_names_come_back(largest, names):
    labels = np.array([*range(10), -1, largest])
    content = codec.compress(IMAGES, model=TINY, labels=labels, names=names)
    opened = codec.CompressedImages(content, "x", model=TINY)
    np.testing.assert_array_equal(opened.labels, labels)
    assert opened.names == names
    np.testing.assert_array_equal(opened.read(), IMAGES)


def test_no_images_have_no_labels():
    content = codec.compress(IMAGES[:0], labels=np.zeros(0, int), names=[], model=TINY)
    opened = codec.CompressedImages(content, "x", model=TINY)
    assert len(opened.labels) == 0 and opened.names == []


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"labels": np.zeros(3)}, "give 12 whole numbers"),
        ({"labels": np.zeros((12, 2), int)}, "give 12 whole numbers"),
        ({"labels": np.full(12, 1 << 63, np.uint64)}, "2\\*\\*63"),
        ({"names": NAMES[:3]}, "3 names: give 12"),
        ({"names": NAMES[:11] + ["../x"]}, "'../x' is no relative path"),
    ],
)
def test_labels_and_names_that_cannot_be_kept(options, problem):
    with pytest.raises(UserError, match=problem):
        codec.compress(IMAGES, model=TINY, **options)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("/etc/passwd", "no relative path"),
        ("a/../../b", "no relative path"),
        ("a\\..\\b", "no relative path"),
        ("", "no relative path"),
        ("a//b", "no relative path"),
        ("a\nb", "control character"),
        ("a\x1b[2J", "control character"),
        ("gnp.\u202eexe", "control character"),
        ("other", "there twice"),
        ("folder", "there twice"),
        ("x" * 256, "too long"),
        ("x/" * 512 + "x", "wrong length"),
    ],
)
def test_hostile_names_in_a_file(monkeypatch, name, problem):
    names = ["other", "folder/other", name]
    monkeypatch.setattr(notes, "check_names", lambda names, source: None)
    content = codec.compress(IMAGES[:3], model=TINY, names=names)
    monkeypatch.undo()
    opened = codec.CompressedImages(content, "x", model=TINY)
    with pytest.raises(UserError, match=problem):
        _ = opened.names
    np.testing.assert_array_equal(opened.read(), IMAGES[:3])


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (bytes([1]) + bytes(3), "wrong length|no labels|too long|list index|range"),
        (bytes([3]) + bytes(9), "no labels"),
        (bytes([1, 0, 0, 0]) + b"\1a\1b\xff\xffc", "wrong length"),
        (bytes([1, 0, 0, 0]) + b"\1a\1b\1\xff", "decode"),
        (bytes([1, 0, 0, 0]) + b"\1a\1b\1cd", "too long"),
        (bytes(10**6), "wrong length"),
    ],
)
def test_damaged_labels_and_names(content, problem):
    packed = zlib.compress(content)
    head = container.Head(
        container.LOSSLESS, DIGEST, 3, 8, 8, 3, features=12, notes_length=len(packed)
    )
    for damaged in (packed, packed + b"x", packed[:-1], b"x"):
        with pytest.raises(UserError, match="is damaged: its labels and names"):
            notes.unpack(damaged, head, "x")
    with pytest.raises(UserError, match=problem):
        notes.unpack(packed, head, "x")


def test_unknown_features_are_refused():
    head = container.Head(container.LOSSLESS, DIGEST, 0, 8, 8, 1, features=32)
    with pytest.raises(UserError, match="feature that this program does not know"):
        parse(container.pack(head, []))


@pytest.mark.parametrize("counts", [[5, 5], [5, 4, 2], [11], [0, 11], [6, 5]])
def test_impossible_counts_are_refused(counts):
    head = container.Head(
        container.LOSSLESS, DIGEST, 11, 8, 8, 5, features=container.COUNTED
    )
    entries = [(container.DEFLATED, 99, 0)] * len(counts)
    content = container.pack(head, entries, counts) + bytes(99 * len(counts))
    if counts == [5, 4, 2]:
        assert [(b.first, b.images) for b in parse(content).blocks] == [
            (0, 5),
            (5, 4),
            (9, 2),
        ]
    else:
        with pytest.raises(UserError, match="impossible numbers of images"):
            parse(content)


def test_the_vectors_of_the_format():
    # Those of docs/codec_format.md.
    head = container.Head(
        container.LOSSLESS, b"abcd", 2, 28, 28, 1, features=7, notes_length=9
    )
    entries = [(container.CODED, 100, 0x01020304), (container.RAW, 784, 5)]
    vector = "454a583200076162636402" + "1c1c01090201920304030201" + "01c01805000000"
    assert container.pack(head, entries, [1, 1]).hex()[:-8] == vector
    features, packed = notes.pack(2, [1, -2], ["a/b", "c"])
    assert features == container.LABELLED | container.NAMED
    assert zlib.decompress(packed).hex() == "0101fe03612f620163"
