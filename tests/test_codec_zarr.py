"""The codec in zarr and numcodecs: any reader, any process, every kind of damage."""

import asyncio
import concurrent.futures
import json
import pathlib
import pickle
import shutil
import subprocess
import sys

import dask.array
import numcodecs
import numpy as np
import pytest
import xarray
import zarr
from codec_models import GOLDEN, TINY, golden_images
from zarr_tools import CHUNK, write

from emnist_jax import codec
from emnist_jax.cli.errors import UserError
from emnist_jax.codec import blocks, numcodecs_form, zarr_form


@pytest.fixture(scope="module")
def small(images):
    return images[:40, 10:16, 10:17, 0]


@pytest.fixture(scope="module")
def path(small, tmp_path_factory):
    path = tmp_path_factory.mktemp("arrays") / "a.zarr"
    write(path, small)
    return path


def test_a_fresh_process_needs_the_package_alone(path, small, tmp_path):
    """Entry points register the codec; JAX is not loaded."""
    np.save(tmp_path / "expected.npy", small[10:20])
    program = (
        f"import sys, numpy as np, zarr; found = zarr.open({str(path)!r})[10:20]; "
        "assert (found == np.load('expected.npy')).all(); "
        "assert not {'jax', 'optax', 'flax'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path)


INDICES = [0, -1, slice(None), slice(5, 29), slice(3, 40, 7), (21, 3), (..., 2, 5)]


@pytest.mark.parametrize("index", INDICES, ids=str)
def test_basic_indices(index, path, small):
    np.testing.assert_array_equal(zarr.open(path)[index], small[index])


def test_fancy_indices(path, small):
    array, rows = zarr.open(path), [39, 0, 13, 0, 12]
    mask = np.arange(40) % 7 == 0
    np.testing.assert_array_equal(array[rows], small[rows])
    np.testing.assert_array_equal(
        array.oindex[rows, 2:4, [1, 6]], small[rows, 2:4][..., [1, 6]]
    )
    np.testing.assert_array_equal(array.oindex[mask], small[mask])
    np.testing.assert_array_equal(array.oindex[7, [1, 3]], small[7, [1, 3]])
    np.testing.assert_array_equal(array.vindex[rows, 2, 3], small[rows, 2, 3])
    np.testing.assert_array_equal(array.blocks[1], small[12:24])
    where = small > 100
    np.testing.assert_array_equal(array.vindex[where], small[where])


def test_only_needed_blocks_are_decoded(path, monkeypatch):
    firsts, load = [], blocks.load

    def noted(coder, entries, *arguments):
        firsts.extend(entry.first for entry in entries)
        return load(coder, entries, *arguments)

    monkeypatch.setattr(blocks, "load", noted)
    array = zarr.open(path)
    array[5]
    assert firsts == [4]
    array[[17, 39, 16]]
    assert sorted(firsts[1:]) == [0, 4]
    del firsts[:]
    array[29:31]
    assert firsts == [4]


def test_threads_and_asyncio(path, small):
    array, starts = zarr.open(path), range(0, 30, 3)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda first: array[first : first + 10], starts))
    np.testing.assert_array_equal(found, [small[at : at + 10] for at in starts])

    async def read():
        array = await zarr.api.asynchronous.open_array(store=path)
        parts = [array.getitem(slice(first, first + 10)) for first in starts]
        return await asyncio.gather(*parts)

    np.testing.assert_array_equal(asyncio.run(read()), found)


def test_writers_side_by_side(small, tmp_path):
    array = zarr_form.create(tmp_path / "a", small.shape, model=TINY, chunk_images=8)

    def part(first):
        array[first : first + 8] = small[first : first + 8]

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(part, range(0, 40, 8)))
    np.testing.assert_array_equal(zarr.open(tmp_path / "a")[:], small)
    array[3:5] = 0  # a part of a chunk
    array.append(small[:3])
    expected = np.concatenate([small[:3], 0 * small[3:5], small[5:], small[:3]])
    np.testing.assert_array_equal(zarr.open(tmp_path / "a")[:], expected)


def test_shards(small, tmp_path):
    options = {"chunks": (4, 6, 7), "shards": (20, 6, 7), "compressors": None}
    serializer = zarr_form.Ejx(model=TINY)
    array = zarr.create_array(tmp_path, data=small, serializer=serializer, **options)
    assert array.shards == (20, 6, 7)
    again = zarr.open(tmp_path)
    np.testing.assert_array_equal(again[:], small)
    np.testing.assert_array_equal(again[17:23], small[17:23])
    again[18:22] = 0
    assert not zarr.open(tmp_path)[18:22].any()
    np.testing.assert_array_equal(again[22:], small[22:])


@pytest.mark.parametrize("trailing", [False, True])
@pytest.mark.parametrize("options", [{"invert": True}, {"max_error": 3}], ids=str)
def test_options(options, trailing, small, tmp_path):
    images = small[..., None] if trailing else small
    write(tmp_path, images, **options)
    array = zarr.open(tmp_path)
    found = array[:]
    assert found.shape == images.shape
    difference = np.abs(found.astype(int) - images).max()
    assert difference == 0 if "invert" in options else 0 < difference <= 3
    names = (*zarr_form.DIMENSIONS[: images.ndim],)
    assert array.metadata.dimension_names == names


def test_dask_and_xarray(path, small, tmp_path):
    array = dask.array.from_zarr(str(path))
    assert array.chunksize == (CHUNK, 6, 7)
    np.testing.assert_array_equal(array[5:30].compute(), small[5:30])
    data = xarray.Dataset({"images": (("image", "row", "column"), small)})
    encoding = {"serializer": zarr_form.Ejx(model=TINY), "compressors": None}
    encoding |= {"chunks": (CHUNK, 6, 7)}
    data.to_zarr(
        tmp_path, zarr_format=3, consolidated=False, encoding={"images": encoding}
    )
    with xarray.open_zarr(tmp_path, consolidated=False) as again:
        np.testing.assert_array_equal(again.images[7:9].values, small[7:9])
        assert again.images.chunks[0] == (12, 12, 12, 4)
    write(tmp_path / "b" / "images", small)  # a part of a group
    zarr.create_group(tmp_path / "b")
    with xarray.open_zarr(tmp_path / "b", consolidated=False) as again:
        np.testing.assert_array_equal(again.images[30:].values, small[30:])


def test_numcodecs(small, tmp_path):
    coder = numcodecs_form.Ejx(model=TINY, max_error=0)
    assert numcodecs.get_codec(coder.get_config()) == coder
    content = coder.encode(small)
    np.testing.assert_array_equal(coder.decode(content), small)
    out = np.empty_like(small)
    coder.decode(bytearray(content), out=out)
    np.testing.assert_array_equal(out, small)
    with pytest.raises(UserError, match="a chunk has type uint16; give uint8"):
        coder.encode(small.astype(np.uint16))
    options = {"chunks": (CHUNK, 6, 7), "zarr_format": 2, "compressors": coder}
    zarr.create_array(tmp_path, data=small, **options)
    np.testing.assert_array_equal(zarr.open(tmp_path)[9:20], small[9:20])


def test_a_chunk_is_a_compressed_file(path, small):
    (chunk,) = path.glob("c/1/0/0")
    with codec.open(chunk, model=TINY) as file:
        np.testing.assert_array_equal(file[:], small[12:24])
    for first in (0, 12, 24):
        alone = codec.compress(small[first : first + 12], model=TINY, block_images=4)
        chunk = path / "c" / str(first // 12) / "0" / "0"
        assert chunk.stat().st_size <= 1.01 * len(alone) + 40
    last = (path / "c/3/0/0").stat().st_size  # 4 images and 8 that are not there
    assert last <= 1.01 * len(codec.compress(small[36:], model=TINY)) + 40


def test_version_1_as_it_is_documented(tmp_path):
    """Metadata that another program wrote, and a golden file as its chunk."""
    metadata = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [40, 28, 28],
        "data_type": "uint8",
        "chunk_grid": {
            "name": "regular",
            "configuration": {"chunk_shape": [40, 28, 28]},
        },
        "chunk_key_encoding": {"name": "default"},
        "fill_value": 0,
        "codecs": [{"name": "emnist_jax.ejx", "configuration": {"version": 1}}],
    }
    (tmp_path / "zarr.json").write_text(json.dumps(metadata))
    (tmp_path / "c/0/0").mkdir(parents=True)
    shutil.copy(GOLDEN / "codec_lossless.ejx", tmp_path / "c/0/0/0")
    np.testing.assert_array_equal(zarr.open(tmp_path)[:], golden_images())


def test_stores_and_pickles(path, small):
    """Other stores than folders; arrays go to other processes, as dask sends them."""
    store = zarr.storage.MemoryStore()
    write(store, small)
    np.testing.assert_array_equal(zarr.open(store)[3:20], small[3:20])
    array = pickle.loads(pickle.dumps(zarr.open(path)))
    np.testing.assert_array_equal(array[3:20], small[3:20])


def test_defaults(images, tmp_path):
    """Chunks are about equal, so that the last one is hardly padded."""
    array = zarr_form.create(tmp_path, (9000, 28, 28))
    assert array.chunks == (3000, 28, 28)
    array[6000:6064] = images[..., 0]
    again = zarr.open(tmp_path)
    np.testing.assert_array_equal(again[6000:6064], images[..., 0])
    config = again.metadata.to_dict()["codecs"][0]["configuration"]
    assert config["model"] == "default" and config["version"] == 1
    assert not again[:10].any()  # nothing there, and nothing read
    assert [p.name for p in pathlib.Path(tmp_path, "c").iterdir()] == ["2"]
