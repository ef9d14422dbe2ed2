import gzip
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
from emnist_tools import (
    IMAGES,
    header,
    hostile,
    idx,
    make_members,
    write_archive,
    write_zip,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from emnist_jax.cli.errors import UserError
from emnist_jax.data import archive


@pytest.mark.parametrize(
    ("variant", "names", "first", "last"),
    [
        ("balanced", 47, "0", "t"),
        ("bymerge", 47, "0", "t"),
        ("byclass", 62, "0", "z"),
        ("letters", 27, "", "Z"),
        ("digits", 10, "0", "9"),
        ("mnist", 10, "0", "9"),
    ],
)
def test_reads_every_variant_upright(tmp_path, variant, names, first, last):
    path = tmp_path / "gzip.zip"
    splits = write_archive(path, variant)
    known = archive.VARIANTS[variant].class_names
    assert (len(known), known[0], known[-1]) == (names, first, last)
    for part, (images, labels) in splits.items():
        found_images, found_labels = archive.read_split(path, variant, part)
        assert (found_images.dtype, found_labels.dtype) == (np.uint8, np.int32)
        np.testing.assert_array_equal(found_images, images)
        np.testing.assert_array_equal(found_labels, labels)


def test_balanced_classes_are_those_of_nist():
    digits_and_capitals = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    names = archive.VARIANTS["balanced"].class_names
    assert "".join(names) == digits_and_capitals + "abdefghnqrt"


PIXELS = bytes(60 * 784)
HOSTILE = {
    "wrong item shape": (
        {"images": gzip.compress(header(3, 60, 32, 32) + PIXELS)},
        r"items of \[32, 32\], not",
    ),
    "another type": (
        {"images": gzip.compress(b"\0\0\x0d\x03" + header(3, 60, 28, 28)[4:] + PIXELS)},
        "says type 0xd03",
    ),
    "no images": ({"images": gzip.compress(header(3, 0, 28, 28))}, "says 0 items"),
    "more images than EMNIST has": (
        {"images": gzip.compress(header(3, 2**32 - 1, 28, 28) + PIXELS)},
        "says 4294967295 items, not 1 to 814255",
    ),
    "fewer pixels than the header says": (
        {"images": gzip.compress(header(3, 61, 28, 28) + PIXELS)},
        "says 61 items, 47824 bytes, and 47040 bytes follow",
    ),
    "more pixels than the header says": (
        {"images": gzip.compress(header(3, 59, 28, 28) + PIXELS)},
        "holds more than the 59 items",
    ),
    "a second gzip member behind the first": (
        {"images": gzip.compress(header(3, 60, 28, 28) + PIXELS) + gzip.compress(b"x")},
        "holds more than the 60 items",
    ),
    "an empty member": ({"images": gzip.compress(b"")}, "within its header"),
    "no gzip": ({"images": header(3, 60, 28, 28) + PIXELS}, "incorrect header check"),
    "gzip cut short": (
        {"images": gzip.compress(header(3, 60, 28, 28) + PIXELS)[:-3]},
        "cut short at its end",
    ),
    "gzip with a wrong checksum": (
        {"images": gzip.compress(header(3, 60, 28, 28) + PIXELS)[:-8] + bytes(8)},
        "incorrect data check",
    ),
    "a label out of range": (
        {"labels": idx(np.full(60, 47))},
        "labels 47 to 47, which must lie within 0 to 46",
    ),
    "fewer labels than images": (
        {"labels": idx(np.zeros(59))},
        "has 60 images and 59 labels",
    ),
}


def refusal(path, variant="balanced", part="train"):
    with pytest.raises(UserError) as caught:
        archive.read_split(path, variant, part)
    message = str(caught.value)
    assert f"--emnist_archive={path}" in message
    assert archive.NIST_URL in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", HOSTILE)
def test_refuses_contradictions(tmp_path, name):
    changes, expected = HOSTILE[name]
    path = write_zip(tmp_path / "gzip.zip", hostile(**changes))
    with pytest.raises(UserError, match=expected):
        archive.read_split(path, "balanced", "train")
    refusal(path)


def test_refuses_labels_below_those_of_letters(tmp_path):
    _, members = make_members("letters")
    members["gzip/emnist-letters-train-labels-idx1-ubyte.gz"] = idx(np.zeros(60))
    path = write_zip(tmp_path / "gzip.zip", members)
    assert "labels 0 to 0, which must lie within 1 to 26" in refusal(path, "letters")


def test_refuses_an_archive_without_the_member(tmp_path):
    path = tmp_path / "gzip.zip"
    write_archive(path, "digits")
    assert f"has no member {IMAGES}" in refusal(path)


def test_bombs_are_not_unpacked(tmp_path):
    bomb = gzip.compress(header(3, 60, 28, 28) + bytes(50_000_000))
    path = write_zip(tmp_path / "gzip.zip", hostile(images=bomb))
    tracemalloc.start()
    try:
        assert "holds more than the 60 items" in refusal(path)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_refuses_members_larger_than_all_of_emnist(tmp_path):
    path = tmp_path / "gzip.zip"
    write_archive(path)
    content = bytearray(path.read_bytes())
    entry = content.find(b"PK\x01\x02")  # that of the training images
    content[entry + 24 : entry + 28] = struct.pack("<I", 700_000_000)
    path.write_bytes(content)
    assert "has 700000000 bytes, more than all of EMNIST" in refusal(path)


def test_refuses_packings_that_nist_does_not_use(tmp_path):
    path = tmp_path / "gzip.zip"
    write_zip(path, make_members()[1], compression=zipfile.ZIP_LZMA)
    assert "is packed by method 14" in refusal(path)


def test_refuses_what_is_no_zip_archive(tmp_path):
    whole = tmp_path / "whole.zip"
    write_archive(whole)
    (tmp_path / "cut.zip").write_bytes(whole.read_bytes()[:-50])
    (tmp_path / "text.zip").write_text("not found")
    (tmp_path / "empty.zip").touch()
    for name in ("cut.zip", "text.zip", "empty.zip"):
        assert "cut short, damaged or no zip archive" in refusal(tmp_path / name)
    refusal(tmp_path)
    refusal(tmp_path / "missing.zip")


def test_refuses_an_encrypted_archive(tmp_path):
    path = tmp_path / "gzip.zip"
    write_archive(path)
    content = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = content.find(signature)
        while at >= 0:
            content[at + offset] |= 1
            at = content.find(signature, at + 1)
    path.write_bytes(content)
    assert "encrypted" in refusal(path)


@settings(derandomize=True, deadline=None, max_examples=150)
@given(st.data())
def test_any_damage_is_refused_or_harmless(tmp_path_factory, draw):
    splits, members = make_members(train=3, test=2)
    path = tmp_path_factory.getbasetemp() / "damaged.zip"
    write_zip(path, members)
    content = bytearray(path.read_bytes())
    at = draw.draw(st.integers(0, len(content) - 1))
    content[at] ^= draw.draw(st.integers(1, 255))
    path.write_bytes(content)
    try:
        images, labels = archive.read_split(path, "balanced", "train")
    except UserError:
        return
    np.testing.assert_array_equal(images, splits["train"][0])
    np.testing.assert_array_equal(labels, splits["train"][1])


def test_sha256_is_that_of_the_content(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    assert archive.sha256(tmp_path / "file").startswith("ba7816bf8f01cfea")
    with pytest.raises(UserError, match="^--emnist_archive=.* cannot be read: No such"):
        archive.sha256(tmp_path / "missing")
