"""MNIST, KMNIST and Fashion-MNIST: from where tfds has them, without TensorFlow."""

import hashlib
import os
import pathlib
import string

import numpy as np

from emnist_jax.cli.errors import UserError
from emnist_jax.data import archive, download, emnist, idx
from emnist_jax.data.splits import Dataset, Split
from emnist_jax.storage import files

_CLOTHES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat")
_CLOTHES += ("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
# Name -> tfds' builder, title, names of the classes.
SETS = {
    "mnist": ("MNIST", "MNIST", tuple(string.digits)),
    "kmnist": ("KMNIST", "Kuzushiji-MNIST", tuple("おきすつなはまやれを")),
    "fashion_mnist": ("FashionMNIST", "Fashion-MNIST", _CLOTHES),
}
_PARTS = {"train": "train", "test": "t10k"}
_KINDS = ("images-idx3-ubyte.gz", "labels-idx1-ubyte.gz")


def load(name: str, *, data_dir: str | os.PathLike | None = None) -> Dataset:
    """Loads a data set; downloads its four files first unless they are here.

    Args:
      name: a key of `SETS`.
      data_dir: as for `emnist.load`; the files lie in `downloads/<name>` of it, and may
        be put there by hand.

    Returns:
      The data set, in the files' order. Its `source` has `kind` (`tfds`), `title` and
      `images_sha256`, of the compressed files.

    Raises:
      download.Unavailable: a file is not here and cannot be downloaded.
      UserError: a file is damaged, or `data_dir` cannot be written.
    """
    _, title, class_names = SETS[name]
    folder = emnist.data_folder(data_dir) / "downloads" / name
    splits, digests = {}, []
    for part, prefix in _PARTS.items():
        arrays = []
        for kind in _KINDS:
            path, digest = _fetched(folder / f"{prefix}-{kind}", name)
            arrays.append(_read(path))
            digests.append(digest)
        images, labels = arrays
        rows = np.arange(len(images))
        splits[part] = Split(images[..., np.newaxis], labels.astype(np.int32), rows)
    digest = hashlib.sha256("".join(digests).encode()).hexdigest()
    source = {"kind": "tfds", "title": title, "images_sha256": digest}
    return Dataset(name, **splits, class_names=class_names, source=source)


def _fetched(path: pathlib.Path, name: str) -> tuple[pathlib.Path, str]:
    """The file and its SHA-256, which is the one that tfds knows."""
    url, digest = known_files(name)[path.name]
    if not path.exists() or archive.sha256(path) != digest:
        with emnist.sole_writer(path):
            download.fetch_file(url, digest, path)
    return path, digest


def known_files(name: str) -> dict[str, tuple[str, str]]:
    """URL and SHA-256 of each file of a data set, as tfds notes them."""
    import tensorflow_datasets as tfds  # takes long to import

    builder = getattr(tfds.image_classification, SETS[name][0])
    infos = {url.rpartition("/")[2]: (url, i) for url, i in builder.url_infos.items()}
    return {file: (url, info.checksum) for file, (url, info) in infos.items()}


def _read(path: pathlib.Path) -> np.ndarray:
    try:
        with files.open_regular(path) as file:
            return idx.read_stream(file, os.fstat(file.fileno()).st_size)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
