"""Small archives in EMNIST's form: written, loaded, compared."""

import gzip
import struct
import zipfile

import numpy as np

from emnist_jax.data import archive, emnist


def draw_split(count, labels, seed=0):
    """Returns upright images that no turn or mirror maps to themselves, and labels."""
    generator = np.random.default_rng(seed)
    images = generator.integers(1, 256, [count, 28, 28, 1]).astype(np.uint8)
    images[:, :, 14:] //= 2
    images[:, 20:] = 0
    return images, np.resize(np.arange(*labels), count).astype(np.int32)


def idx(array):
    """Packs bytes as NIST does: IDX in gzip."""
    header = struct.pack(">HBB", 0, 8, array.ndim)
    shape = struct.pack(f">{array.ndim}I", *array.shape)
    return gzip.compress(header + shape + array.astype(np.uint8).tobytes(), 0, mtime=0)


def make_members(variant="balanced", train=60, test=20, seed=0):
    """Returns the splits and the members of an archive that holds them."""
    known = archive.VARIANTS[variant]
    labels = (known.first_label, len(known.class_names))
    splits, members = {}, {}
    for part, count in (("train", train), ("test", test)):
        images, values = splits[part] = draw_split(count, labels, seed + len(part))
        stem = f"gzip/emnist-{variant}-{part}"
        transposed = images[..., 0].transpose(0, 2, 1)
        members[f"{stem}-images-idx3-ubyte.gz"] = idx(transposed)
        members[f"{stem}-labels-idx1-ubyte.gz"] = idx(values)
    return splits, members


def write_zip(path, members, **settings):
    with zipfile.ZipFile(path, "w", **settings) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def write_archive(path, variant="balanced", train=60, test=20, seed=0):
    """Writes a small archive like NIST's and returns its splits."""
    splits, members = make_members(variant, train, test, seed)
    write_zip(path, members)
    return splits


IMAGES = "gzip/emnist-balanced-train-images-idx3-ubyte.gz"


LABELS = "gzip/emnist-balanced-train-labels-idx1-ubyte.gz"


def header(kind, *shape):
    return struct.pack(f">HBB{len(shape)}I", 0, 8, kind, *shape)


def hostile(**changes):
    """Members where the training images or labels are replaced."""
    _, members = make_members()
    for name, content in changes.items():
        members[{"images": IMAGES, "labels": LABELS}[name]] = content
    return members


def load(tmp_path, path=None, variant="balanced"):
    return emnist.load(variant, data_dir=tmp_path / "data", emnist_archive=path)


def assert_holds(dataset, splits):
    for part, (images, labels) in splits.items():
        split = getattr(dataset, part)
        np.testing.assert_array_equal(split.images, images)
        np.testing.assert_array_equal(split.labels, labels)
        np.testing.assert_array_equal(split.indices, np.arange(len(labels)))


def prepared_folder(tmp_path, variant="balanced"):
    (folder,) = (tmp_path / "data" / "emnist_jax").glob(f"{variant}-*")
    return folder
