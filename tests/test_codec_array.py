"""Open files as arrays: every kind of index, each block decoded once, any process."""

import concurrent.futures
import multiprocessing

import numpy as np
import pytest
from codec_models import TINY, coded_content

from emnist_jax import codec
from emnist_jax.codec import blocks, writer


@pytest.fixture(scope="module")
def small(images):
    return images[:30, 10:16, 10:17, 0]


@pytest.fixture
def opened(small):
    return codec.CompressedImages(coded_content(small, 4), "x", model=TINY)


@pytest.fixture
def loaded(monkeypatch):
    """Numbers of the first images of the blocks that have been decoded."""
    firsts, load = [], blocks.load

    def noted(coder, entries, *arguments):
        firsts.extend(entry.first for entry in entries)
        return load(coder, entries, *arguments)

    monkeypatch.setattr(blocks, "load", noted)
    return firsts


MASK = np.arange(30) % 7 == 0
INDICES = {
    "integer": 7,
    "negative": -30,
    "NumPy integer": np.int8(29),
    "all": slice(None),
    "ellipsis": ...,
    "empty tuple": (),
    "slice": slice(3, 22),
    "stride": slice(0, 30, 11),
    "reversed": slice(25, None, -6),
    "empty": slice(20, 10),
    "list": [29, 0, 3, 0, -1],
    "empty list": [],
    "unsigned": np.array([4, 5], np.uint8),
    "two axes": np.array([[1, 2], [29, 2]]),
    "mask": MASK,
    "mask as list": MASK.tolist(),
    "pixel": (5, 2, 3),
    "rows": (slice(4, 9), slice(1, 4)),
    "columns": ([3, 9], ..., 2),
    "column of all": (..., 2),
}


@pytest.mark.parametrize("index", INDICES.values(), ids=INDICES.keys())
def test_indices_are_those_of_an_array(index, opened, small):
    found, expected = opened[index], small[index]
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected, strict=True)


@pytest.mark.parametrize(
    "index", [30, -31, [30], [0.5], 1.0, "a", None, True, MASK[:9], ([0], [1])]
)
def test_impossible_indices(index, opened):
    with pytest.raises(IndexError):
        opened[index]


def test_each_block_is_decoded_once(opened, loaded):
    opened[[29, 0, 28, 1, 13, 0]]
    assert loaded == [0, 12, 28]
    del loaded[:]
    opened[0:30:15]
    assert loaded == [0, 12]
    del loaded[:]
    for index in (4, 8, 4, 7, 11, 4):
        opened[index]
    assert loaded == [4, 8]
    del loaded[:]
    opened[9:14]
    assert loaded == [8, 12]


def test_as_an_array(opened, small):
    np.testing.assert_array_equal(np.asarray(opened), small)
    assert np.asarray(opened, np.float32).dtype == np.float32
    with pytest.raises(ValueError, match="without being decoded"):
        np.array(opened, copy=False)
    np.testing.assert_array_equal(list(opened), small)
    np.testing.assert_array_equal(opened.__getitems__([3, 1]), small[[3, 1]])
    image = opened[3]
    image[:] = 7  # a copy of what is kept
    np.testing.assert_array_equal(opened[3], small[3])


def one(opened, index):
    return opened[index]


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore")  # Python 3.12 advises against forks
def test_workers(method, small, tmp_path):
    """As PyTorch's DataLoader has them: the open file goes to processes."""
    path = tmp_path / "a.ejx"
    path.write_bytes(coded_content(small, 4, embed=True))
    with codec.open(path) as opened:
        np.testing.assert_array_equal(opened[0], small[0])  # after use
        context = multiprocessing.get_context(method)
        with concurrent.futures.ProcessPoolExecutor(2, context) as pool:
            jobs = [pool.submit(one, opened, index) for index in (0, 9, 29)]
            found = [job.result(timeout=60) for job in jobs]
    np.testing.assert_array_equal(found, small[[0, 9, 29]])


def test_threads(opened, small):
    indices = np.random.default_rng(0).integers(0, 30, 200).tolist()
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        found = list(pool.map(opened.__getitem__, indices))
    np.testing.assert_array_equal(found, small[indices])


def test_the_size_of_blocks(images, monkeypatch):
    """Few images where the pixel model pays, and many for bzip2."""
    small = images[:, 6:22, 6:22, 0]

    def most(images, **options):
        content = codec.compress(images, model=TINY, **options)
        return codec.CompressedImages(content, "x", model=TINY).head.block_images

    monkeypatch.setattr(writer, "BLOCK_PIXELS", 8 * 256)
    assert most(small) == 8
    assert most(small, mode="near-lossless", max_error=2) == 8
    assert most(small, block_images=30) == 22  # about equal ones
    checked = np.uint8(255) * (np.indices((64, 16, 16)).sum(0) % 2).astype(np.uint8)
    assert most(checked) == 64
