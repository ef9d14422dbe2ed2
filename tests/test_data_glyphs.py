import hashlib
import json

import numpy as np
import pytest

from emnist_jax import data
from emnist_jax.data import archive, glyphs, strokes
from emnist_jax.data.skeletons import SKELETONS


@pytest.fixture(scope="module")
def dataset():
    return data.load("glyphs")


def test_classes_and_counts_are_those_promised(dataset):
    assert dataset.name == "glyphs"
    assert dataset.class_names == archive.VARIANTS["balanced"].class_names
    for split, count in ((dataset.train, 100), (dataset.test, 20)):
        assert np.bincount(split.labels).tolist() == [count] * 47
        assert split.indices.tolist() == list(range(47 * count))
        assert split.labels[:47].tolist() == list(range(47))


def test_images_are_the_same_everywhere(dataset):
    """Another checksum is another data set: give it another VERSION."""
    assert glyphs.VERSION == 1
    images = np.concatenate([dataset.train.images, dataset.test.images])
    assert hashlib.sha256(images).hexdigest() == CHECKSUM
    assert dataset.source == {
        "kind": "glyphs",
        "title": "built-in glyphs",
        "version": 1,
        "images_sha256": CHECKSUM,
    }
    assert json.loads(json.dumps(dataset.source)) == dataset.source


CHECKSUM = "364d0ca1518a6eb37cefbb2a6a26328d12225020bb69c6cb5440f6b225fc0ba0"


def test_no_image_occurs_twice(dataset):
    images = np.concatenate([dataset.train.images, dataset.test.images])
    assert len(np.unique(images.reshape(len(images), -1), axis=0)) == 5640


def test_statistics_resemble_those_of_emnist(dataset):
    """EMNIST-Balanced: mean 0.175, 67% paper, ink boxes 14 to 26 pixels long."""
    images = dataset.train.images[..., 0]
    assert 0.16 < images.mean() / 255 < 0.19
    assert 0.64 < (images == 0).mean() < 0.69
    assert 0.04 < (images >= 250).mean() < 0.1
    assert (images.max(axis=(1, 2)) == 255).mean() > 0.99
    for axis in (1, 2):
        inked = (images > 0).any(axis)
        first, last = inked.argmax(1), 27 - inked[:, ::-1].argmax(1)
        length = last - first + 1
        assert 20 <= np.median(length) <= 25 and length.max() <= 28
        assert np.abs(first - (27 - last)).max() <= 3  # centred
    heights = np.abs(np.diff(images.astype(int), axis=2))
    assert 40 < heights[images[:, :, 1:] > 0].mean() < 70  # soft edges


def test_classes_can_be_told_apart(dataset):
    """Nearest mean image: 1 in 47 by chance."""
    train = dataset.train.images.reshape(4700, -1) / 255.0
    test = dataset.test.images.reshape(940, -1) / 255.0
    means = np.stack([train[dataset.train.labels == k].mean(0) for k in range(47)])
    distance = (means**2).sum(1) - 2 * test @ means.T
    assert (distance.argmin(1) == dataset.test.labels).mean() > 0.5


def test_images_depend_on_the_seed_alone():
    labels = np.arange(47)
    one, again, other = (glyphs.draw(labels, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any(axis=(1, 2, 3)).all()


def test_paths_stay_on_their_strokes():
    tables = strokes.tables()
    assert (
        len(tables.control)
        == tables.ways.sum()
        == tables.first_way[-1] + tables.ways[-1]
    )
    np.testing.assert_allclose(tables.curved.sum(-1), 1)
    np.testing.assert_allclose(tables.straight.sum(-1), 1)
    for way, text in enumerate(t for texts in SKELETONS.values() for t in texts):
        rows = np.arange(strokes.PATH_POINTS)
        breaks = (tables.after[way] == rows).sum()
        assert breaks == len(text.split("/"))
        assert (tables.before[way] == rows).sum() == breaks
        corners = [
            control.rstrip("!").split(",") for control in text.replace("/", " ").split()
        ]
        found = np.take(tables.control[way], tables.index[way], axis=0)
        path = (tables.straight[way][..., None] * found).sum(1)
        for corner in np.array(corners, float):  # the pen passes through every point
            assert np.hypot(*(path - corner).T).min() < 6
