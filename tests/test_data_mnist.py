"""MNIST and its like by name, from files as tfds knows them."""

import gzip
import hashlib

import numpy as np
import pytest
from test_images import idx

import emnist_jax
from emnist_jax import data
from emnist_jax.cli.errors import UserError
from emnist_jax.config import DATASETS
from emnist_jax.data import datasets, mnist

REFUSES = "http://127.0.0.1:9"


def test_both_lists_of_names_are_the_same():
    assert {*DATASETS} - {"images"} == {*datasets.NAMES}


@pytest.mark.parametrize("name", mnist.SETS)
def test_tfds_says_where_the_files_are(name):
    known = mnist.known_files(name)
    assert {*known} >= {f"{p}-{k}" for p in ("train", "t10k") for k in mnist._KINDS}
    assert all(len(digest) == 64 for _, digest in known.values())


def test_files_put_there_by_hand(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    images = np.random.default_rng(0).integers(0, 256, (12, 28, 28)).astype(np.uint8)
    folder, known = tmp_path / "downloads" / "kmnist", {}
    folder.mkdir(parents=True)
    for part, rows in (("train", slice(8)), ("t10k", slice(8, 12))):
        contents = (images[rows], np.arange(12)[rows] % 10)
        for kind, array in zip(mnist._KINDS, contents, strict=True):
            content = gzip.compress(idx(array))
            (folder / f"{part}-{kind}").write_bytes(content)
            digest = hashlib.sha256(content).hexdigest()
            known[f"{part}-{kind}"] = (f"{REFUSES}/{part}-{kind}", digest)
    monkeypatch.setattr(mnist, "known_files", lambda name: known)
    dataset = data.load("kmnist")
    np.testing.assert_array_equal(dataset.train.images[..., 0], images[:8])
    found = emnist_jax.read_images("kmnist", split="test")
    np.testing.assert_array_equal(found.images, images[8:])
    assert found.labels.tolist() == [8, 9, 0, 1] and found.class_names[1] == "き"
    path = folder / "t10k-labels-idx1-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match="^--dataset=kmnist is not on this machine: .*"):
        data.load("kmnist")
    with pytest.raises(UserError, match="does not go with --dataset=kmnist"):
        data.load("kmnist", emnist_archive="x.zip")
