"""A folder of compressed files as one array, in any process."""

import concurrent.futures
import multiprocessing
import pickle

import numpy as np
import pytest
from codec_models import TINY, coded_content

from emnist_jax import codec
from emnist_jax.cli.errors import UserError
from emnist_jax.codec import folder

SIZES = {"a.ejx": 7, "b.EJX": 0, "c.ejx": 12, "c2.ejx": 1, "d.ejx": 10}


@pytest.fixture(scope="module")
def small(images):
    return images[:30, 10:16, 10:17, 0]


@pytest.fixture(scope="module")
def place(small, tmp_path_factory):
    """A folder as bulk work leaves it: files, an index, something hidden."""
    place = tmp_path_factory.mktemp("shards")
    for name, first in zip(SIZES, np.cumsum([0, *SIZES.values()]), strict=False):
        part = small[first : first + SIZES[name]]
        content = coded_content(part, 4, embed=True) if len(part) else empty(small)
        (place / name).write_bytes(content)
    (place / "index.json").write_text("{}")
    (place / ".hidden.ejx").write_text("")
    return place


def empty(small):
    return codec.compress(small[:0], model=TINY, embed_model=True)


@pytest.fixture
def opened(place):
    with codec.open(place) as opened:
        yield opened


@pytest.mark.parametrize(
    "index",
    [0, 7, -1, slice(None), slice(5, 21), slice(25, None, -6), slice(9, 9), []]
    + [[29, 0, 3, 0, -1], np.array([[1, 20], [29, 2]]), np.arange(30) % 7 == 0]
    + [(19, 2, 3), (slice(4, 9), slice(1, 4)), (..., 2)],
    ids=str,
)
def test_indices_are_those_of_an_array(index, opened, small):
    np.testing.assert_array_equal(opened[index], small[index], strict=True)


def test_as_an_array(opened, small, place):
    assert opened.shape == small.shape and len(opened) == 30
    np.testing.assert_array_equal(np.asarray(opened), small)
    np.testing.assert_array_equal(list(opened), small)
    done = []
    opened.read(3, 28, done.append)
    assert sum(done) >= 25
    assert repr(opened) == f"CompressedFolder('{place}', shape=(30, 6, 7))"
    with pytest.raises(IndexError):
        opened[30]


def test_few_files_are_open_at_once(opened, small, monkeypatch):
    monkeypatch.setattr(folder, "MOST_OPEN", 2)
    order = np.random.default_rng(0).integers(0, 30, 60)
    for index in order:
        np.testing.assert_array_equal(opened[int(index)], small[index])
        assert len(opened._held) <= 2
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        found = list(pool.map(opened.__getitem__, order.tolist()))
    np.testing.assert_array_equal(found, small[order])


def one(opened, index):
    return opened[index]


@pytest.mark.long
@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore")  # Python 3.12 advises against forks
def test_workers(method, opened, small):
    np.testing.assert_array_equal(opened[0], small[0])  # after use
    context = multiprocessing.get_context(method)
    with concurrent.futures.ProcessPoolExecutor(2, context) as pool:
        jobs = [pool.submit(one, opened, index) for index in (0, 9, 29)]
        found = [job.result(timeout=60) for job in jobs]
    np.testing.assert_array_equal(found, small[[0, 9, 29]])


def test_it_pickles_as_its_path(place, small, monkeypatch, tmp_path):
    monkeypatch.chdir(place.parent)
    opened = codec.open(place.name)
    monkeypatch.chdir(tmp_path)
    content = pickle.dumps(opened)
    assert len(content) < 500
    np.testing.assert_array_equal(pickle.loads(content)[29], small[29])


def test_labels_and_names(small, tmp_path):
    for name in ("x", "y"):
        content = codec.compress(
            small[:2], model=TINY, embed_model=True, labels=[3, ord(name)], names="ab"
        )
        (tmp_path / f"{name}.ejx").write_bytes(content)
    with codec.open(tmp_path) as opened:
        assert opened.labels.tolist() == [3, 120, 3, 121]
        assert opened.names == [*"abab"]
    (tmp_path / "z.ejx").write_bytes(empty(small))
    with codec.open(tmp_path) as opened:
        assert opened.labels is None and opened.names is None


def test_commands(run, place, small):
    assert run("decompress", place, "a.npy", "--range=5:25")[0] == 0
    np.testing.assert_array_equal(np.load("a.npy"), small[5:25])
    np.save("b.npy", small)
    code, out, _ = run("verify", place, "b.npy")
    assert code == 0 and "every pixel is that of b.npy" in out
    code, _, message = run("verify", place.parent)
    assert code == 2 and "without compressed files" in message


def test_folders_that_are_none(small, place, tmp_path):
    with pytest.raises(UserError, match="without compressed files"):
        codec.open(tmp_path)
    (tmp_path / "a.ejx").write_bytes(empty(small))
    with codec.open(tmp_path) as nothing:
        assert nothing[:].shape == (0, 6, 7)
    (tmp_path / "b.ejx").write_bytes(codec.compress(small[:2, :5], model="fast"))
    with pytest.raises(UserError, match=r"b\.ejx holds images \(5, 7\).*one size"):
        codec.open(tmp_path)
    (tmp_path / "b.ejx").write_text("something else")
    with pytest.raises(UserError, match="b.ejx is no compressed image file"):
        codec.open(tmp_path)


def test_files_that_change(small, tmp_path):
    (tmp_path / "a.ejx").write_bytes(coded_content(small, 4, embed=True))
    opened = codec.open(tmp_path)
    (tmp_path / "a.ejx").unlink()
    (tmp_path / "a.ejx").write_bytes(coded_content(small[:9], 4, embed=True))
    with pytest.raises(UserError, match="a.ejx has changed"):
        opened[20]
