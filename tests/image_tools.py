"""What tests of reading images share: calls that compare."""

import numpy as np
import pytest
from PIL import Image

import emnist_jax
from emnist_jax.cli.errors import UserError


def read(source, **options):
    return emnist_jax.read_images(source, **options)


def same(source, images, **options):
    found = read(source, **options)
    np.testing.assert_array_equal(found.images, images)
    assert found.images.dtype == np.uint8
    assert found.rows.tolist() == list(range(len(images)))
    return found


def refused(source, message, **options):
    with pytest.raises(UserError) as caught:
        read(source, **options)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def idx(array):
    header = b"\0\0\x08" + bytes([array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return header + array.astype(np.uint8).tobytes()


def save_pictures(folder, images, names):
    for image, name in zip(images, names, strict=True):
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        Image.fromarray(image).save(folder / name)
