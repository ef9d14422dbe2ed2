"""A user's own images as a data set: of one source, or of one more to test on."""

import hashlib
import os
import sys
from typing import Any

import numpy as np

from emnist_jax.cli.errors import UserError
from emnist_jax.data.images import read_images
from emnist_jax.data.splits import Dataset, Split, hold_out
from emnist_jax.storage.arrays import check_images

TEST_FRACTION = 0.1

Path = str | os.PathLike


def load(path: Path, test_path: Path | None = None, **options: Any) -> Dataset:
    """The images of a source, with those of another or a seeded tenth of them to test.

    Without `test_path` equal images are never on both sides; with it, test images that
    train holds too are counted and said. Labels are all 0 where the source has none.

    Args:
      path: what `read_images` takes; even heights and widths from 8 to 128.
      test_path: the same; None to hold images of `path` out.
      **options: as for `read_images`.

    Raises:
      UserError: a source is wrong, or the only one holds fewer than two different
        images.
    """
    names, whole, digest = _read(path, "images", split="train", **options)
    source = {"kind": "images", "title": "own images", "images_sha256": digest}
    if test_path is None:
        setting = f"--images={path}: a test part"
        train, test = hold_out(whole, TEST_FRACTION, 0, setting=setting)
    else:
        train = whole
        size = train.image_size
        theirs, test, digest = _read(
            test_path, "test_images", size, split="test", **options
        )
        names = _same_classes(names, theirs, f"--test_images={test_path}")
        source["test_images_sha256"] = digest
        if shared := _in_train(test.images, train.images):
            print(
                f"warning: {shared:,} of {len(test):,} test images stand in train too",
                file=sys.stderr,
            )
    return Dataset("images", train, test, names or ("image",), source)


def load_test(path: Path, **options: Any) -> tuple[Split, dict[str, Any]]:
    """Images to test on alone, and facts of where they come from; as `load`."""
    _, test, digest = _read(path, "images", split="test", **options)
    facts = {"kind": "images", "title": "own images", "test_images_sha256": digest}
    return test, {"name": "images", **facts}


def _read(
    path: Path, flag: str, size: tuple[int, int] | None = None, **options: Any
) -> tuple[tuple[str, ...], Split, str]:
    """Names of classes, images and a digest of the pixels."""
    try:
        found = read_images(path, round_floats=True, **options)
        images = check_images(found.images, os.fspath(path), size)
        images = np.ascontiguousarray(images)
    except UserError as error:
        given = "" if str(error).startswith(os.fspath(path)) else f"{path}: "
        raise UserError(f"--{flag}={given}{error}") from error
    labels = found.labels
    if labels is None:
        labels = np.zeros(len(images), np.int32)
    digest = hashlib.sha256(images.data).hexdigest()
    return found.class_names, Split(images, labels, found.rows), digest


def _same_classes(
    ours: tuple[str, ...], theirs: tuple[str, ...], name: str
) -> tuple[str, ...]:
    """The names of the classes of both parts, of which one may have more at its end."""
    longer, shorter = sorted((ours, theirs), key=len, reverse=True)
    if longer[: len(shorter)] != shorter:
        raise UserError(
            f"{name}: has the classes {', '.join(theirs[:5])}, not those of --images, "
            f"{', '.join(ours[:5])}"
        )
    return longer


def _in_train(test: np.ndarray, train: np.ndarray) -> int:
    wanted = {image.tobytes() for image in test}
    found = wanted & {image.tobytes() for image in train}
    return sum(image.tobytes() in found for image in test)
