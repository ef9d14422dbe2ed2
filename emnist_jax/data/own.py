"""A user's own images as a data set: one `.npy` file."""

import hashlib
import os

import numpy as np

from emnist_jax.data.splits import Dataset, Split, hold_out
from emnist_jax.storage.arrays import check_images, open_array

TEST_FRACTION = 0.1


def load(path: str | os.PathLike) -> Dataset:
    """The images of a file, a seeded tenth of them held out to test.

    Equal images are never on both sides. Labels are all 0.

    Args:
      path: `.npy`, `[N, 28, 28, 1]` or `[N, 28, 28]`, uint8 or floats in [0, 1],
        which are rounded to 8 bits.

    Raises:
      UserError: the file is wrong, or holds fewer than two different images.
    """
    images = check_images(open_array(path), f"--images={path}")
    if images.dtype != np.uint8:
        images = np.round(255 * images).astype(np.uint8)
    images = np.ascontiguousarray(images)
    rows = np.arange(len(images))
    whole = Split(images, np.zeros(len(images), np.int32), rows)
    setting = f"--images={path}: a test part"
    train, test = hold_out(whole, TEST_FRACTION, 0, setting=setting)
    return Dataset(
        name="images",
        train=train,
        test=test,
        class_names=("image",),
        source={
            "kind": "images",
            "title": "own images",
            "images_sha256": hashlib.sha256(images.data).hexdigest(),
        },
    )
