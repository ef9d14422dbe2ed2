"""A user's own images as a data set: a `.npy` file, or one more to test on."""

import hashlib
import os
import sys

import numpy as np

from emnist_jax.data.splits import Dataset, Split, hold_out
from emnist_jax.storage.arrays import check_images, open_array

TEST_FRACTION = 0.1

Path = str | os.PathLike


def load(
    path: str | os.PathLike, test_path: str | os.PathLike | None = None
) -> Dataset:
    """The images of a file, with those of another or a seeded tenth of them to test.

    Without `test_path` equal images are never on both sides; with it, test images that
    train holds too are counted and said. Labels are all 0.

    Args:
      path: `.npy`, `[N, 28, 28, 1]` or `[N, 28, 28]`, uint8 or floats in [0, 1],
        which are rounded to 8 bits.
      test_path: the same; None to hold images of `path` out.

    Raises:
      UserError: a file is wrong, or the only one holds fewer than two different images.
    """
    whole, digest = _read(path, f"--images={path}")
    source = {"kind": "images", "title": "own images", "images_sha256": digest}
    if test_path is None:
        setting = f"--images={path}: a test part"
        train, test = hold_out(whole, TEST_FRACTION, 0, setting=setting)
    else:
        train = whole
        test, source["test_images_sha256"] = _read(
            test_path, f"--test_images={test_path}"
        )
        if shared := _in_train(test.images, train.images):
            print(
                f"warning: {shared:,} of {len(test):,} test images stand in train too",
                file=sys.stderr,
            )
    return Dataset("images", train, test, ("image",), source)


def _read(path: Path, name: str) -> tuple[Split, str]:
    images = check_images(open_array(path), name)
    if images.dtype != np.uint8:
        images = np.round(255 * images).astype(np.uint8)
    images = np.ascontiguousarray(images)
    rows = np.arange(len(images))
    split = Split(images, np.zeros(len(images), np.int32), rows)
    return split, hashlib.sha256(images.data).hexdigest()


def _in_train(test: np.ndarray, train: np.ndarray) -> int:
    wanted = {image.tobytes() for image in test}
    found = wanted & {image.tobytes() for image in train}
    return sum(image.tobytes() in found for image in test)
