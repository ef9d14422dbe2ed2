"""Arrays and chunks of the codec in zarr that are damaged, foreign or no images."""

import numcodecs
import numpy as np
import pytest
import zarr
from codec_models import TINY
from zarr_tools import write

from emnist_jax import codec
from emnist_jax.cli.errors import UserError
from emnist_jax.codec import chunks, zarr_form


@pytest.fixture(scope="module")
def small(images):
    return images[:40, 10:16, 10:17, 0]


def damage(chunk, change):
    content = bytearray(chunk.read_bytes())
    chunk.write_bytes(change(content))


DAMAGE = {
    "a bit": (lambda c: c[:-9] + bytes([c[-9] ^ 1]) + c[-8:], "a chunk is damaged"),
    "the end": (lambda c: c[:-5], "a chunk is damaged: it should have"),
    "all": (lambda c: b"", "a chunk is no compressed image file"),
    "another": (
        lambda c: codec.compress(np.zeros((3, 6, 7), "u1"), model=TINY),
        "a chunk holds",
    ),
    "a later version": (lambda c: b"EJX9" + c[4:], "format version b'9'"),
    "another model": (
        lambda c: codec.compress(np.zeros((12, 6, 7), "u1"), model="fast"),
        "model is pixel model",
    ),
}


@pytest.mark.parametrize(("change", "message"), DAMAGE.values(), ids=DAMAGE.keys())
def test_damaged_chunks(change, message, small, tmp_path):
    array = write(tmp_path, small)
    damage(tmp_path / "c/1/0/0", change)
    for index in (23, slice(None), [3, 22]):
        with pytest.raises(UserError, match=message):
            array[index]
    np.testing.assert_array_equal(array[24:], small[24:])
    (tmp_path / "c/1/0/0").unlink()
    assert not array[12:24].any()


GOOD = {"shape": (40, 6, 7), "chunks": (12, 6, 7), "dtype": "uint8"}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"dtype": "uint16"}, "are no images; give uint8 [N, height, width] or"),
        ({"dtype": "float32"}, "ejx: float32 ("),
        ({"shape": (40, 42), "chunks": (12, 42)}, "42) are no images"),
        ({"shape": (40, 6, 7, 3), "chunks": (9, 6, 7, 3)}, "6, 7, 3) are no images"),
        ({"chunks": (12, 3, 7)}, "chunks=(12, 3, 7) cut images of (6, 7) apart"),
        ({"shape": (9, 70000, 1), "chunks": (1, 70000, 1)}, "are no images"),
    ],
)
@pytest.mark.parametrize("sharded", [False, True])
def test_arrays_that_are_none_of_images(wrong, message, sharded, tmp_path):
    options = GOOD | wrong | {"serializer": zarr_form.Ejx(), "compressors": None}
    if sharded and "cut" not in message:
        options["shards"] = (2 * options["chunks"][0], *options["chunks"][1:])
    with pytest.raises(UserError) as raised:
        zarr.create_array(tmp_path / "a", **options)
    assert message in str(raised.value)
    assert not (tmp_path / "a" / "zarr.json").exists()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("version", 2, "version=2 is unknown; this program reads 1"),
        ("colour", 1, "codec emnist_jax.ejx: colour is unknown"),
        ("model", TINY, "nor a model file in base64"),
        ("model", "base64:???", "nor a model file in base64"),
        ("model", "base64:AAAA", "the model is no pixel model"),
        ("model", ["fast"], "nor a model file in base64"),
        ("max_error", 200, "max_error=200 is out of range"),
        ("max_error", "x", "max_error=x is out of range"),
        ("block_images", 0, "block_images=0 is out of range"),
    ],
)
def test_configurations_of_others(field, value, message):
    """Metadata may be anybody's: one clear error, and no path in it is followed."""
    config = chunks.Chunks().to_json() | {field: value}
    entry = {"name": chunks.NAME, "configuration": config}
    for make in (
        lambda: zarr_form.Ejx.from_dict(entry),
        lambda: numcodecs.get_codec({"id": chunks.NAME, **config}),
    ):
        with pytest.raises(UserError) as raised:
            make()
        assert message in str(raised.value)
