"""Images in whatever form people hold them: one table of forms for every command."""

import dataclasses
import difflib
import gzip
import os
import pathlib
import sys
import zipfile
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from emnist_jax.cli.errors import UserError
from emnist_jax.data import (
    datasets,
    emnist_source,
    idx,
    matlab,
    orientation,
    parquet,
    pictures,
    tables,
    zarr_store,
)
from emnist_jax.data.found import Found
from emnist_jax.data.values import Options, chunks, gather, resized, to_bytes, to_gray
from emnist_jax.storage import files
from emnist_jax.storage.arrays import open_array, read_archive

_HEAD = 512  # bytes by which files are told apart


class Images(NamedTuple):
    """Images of any source.

    Attributes:
      images: uint8 [N, height, width]; those of an uint8 `.npy` are a memory map,
        and what is large lies in a temporary file.
      labels: int32 [N], indices into `class_names`, or None.
      names: file names, or None.
      rows: int64 [N], the place of each image in the source.
      class_names: what labels mean; the numbers themselves where nothing is known.
    """

    images: np.ndarray
    labels: np.ndarray | None
    names: tuple[str, ...] | None
    rows: np.ndarray
    class_names: tuple[str, ...]


class Form(NamedTuple):
    """One form of images: how it reads, and by what it is told from the others.

    Attributes:
      read: from path, what stands behind the colon of `FILE:CHOSEN`, and options.
      knows: from path, first bytes and the names inside a zip.
    """

    read: Callable[[pathlib.Path, str | None, Options], Found]
    knows: Callable[[pathlib.Path, bytes, list[str]], bool]


def read_images(source: str | os.PathLike, **options: Any) -> Images:
    """Reads images, with labels and names where there are any.

    Args:
      source: a file, a folder or the name of a data set; `docs/data.md` has the table.
        `FILE.npz:train_images` chooses one of several arrays.
      **options: `reader`, `split`, `value_range`, `invert`, `transposed`, `convert`,
        `resize` and what else `data.values.Options` says.

    Raises:
      UserError: it cannot be read, or would lose something that no option allows.
    """
    if unknown := options.keys() - {f.name for f in dataclasses.fields(Options)}:
        raise UserError(f"{min(unknown)}: there is no such option")
    options = Options(**options)
    name = os.fspath(source)
    labels, names, axes = [], [], set()
    try:
        path, chosen = parted(name)
        found = _form_of(path, name, options).read(path, chosen, options)
        images = gather(_plain(found, (labels, names, axes), options, name), name)
        words = labels if labels else pictures.classes_of(names) if names else None
        labels, class_names = _numbered(words, found.class_names)
    except UserError:
        raise
    except Exception as error:  # a damaged file can raise nearly anything
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        reason = reason[:120] or type(error).__name__
        raise UserError(f"cannot read {name}: {reason}") from error
    if labels is not None and len(labels) != len(images):
        raise UserError(f"{name}: has {len(labels)} labels for {len(images)} images")
    _notice(images, name, options)
    rows = np.arange(len(images))
    if options.channel and 4 in axes:
        images = images[..., np.newaxis]
    return Images(images, labels, tuple(names) or None, rows, class_names)


def _by_name(path: pathlib.Path, chosen: str | None, options: Options) -> Found:
    """A part of a data set that `datasets.load` knows."""
    dataset = datasets.load(path.as_posix(), emnist_archive=options.emnist_archive)
    split = getattr(dataset, options.split or "test")
    return Found([(split.images, split.labels, None)], dataset.class_names, False)


def parted(name: str) -> tuple[pathlib.Path, str | None]:
    """Path and choice of a source as users give it, `FILE:CHOICE`."""
    if name == "-":
        raise UserError("-: standard input is not read; name a file")
    front, colon, chosen = name.rpartition(":")
    if colon and not os.path.lexists(name):
        return pathlib.Path(front), chosen
    return pathlib.Path(name), None


def _form_of(path: pathlib.Path, name: str, options: Options) -> Form:
    if options.reader is not None:
        if options.reader not in FORMS:
            raise UserError(
                f"reader={options.reader} is unknown: give {', '.join(FORMS)}"
            )
        return FORMS[options.reader]
    head, inside = b"", []
    if name in datasets.NAMES[1:] and not path.exists():
        return FORMS["dataset"]
    if not path.is_dir():
        with files.open_regular(path) as file:
            head = file.read(_HEAD)
            if head.startswith(b"PK"):
                with zipfile.ZipFile(file) as archive:
                    inside = archive.namelist()
            if head.startswith(idx.GZIP):
                file.seek(0)
                head = gzip.GzipFile(fileobj=file).read(_HEAD)
    for form in FORMS.values():
        if form.knows(path, head, inside):
            return form
    raise UserError(
        f"{name} is no image file that is known: give one of {', '.join(FORMS)}"
    )


def _plain(
    found: Found, noted: tuple[list, list, set], options: Options, name: str
) -> Iterator[np.ndarray]:
    """uint8 [n, H, W] of each piece; notes labels, names and numbers of axes."""
    labels, names, axes = noted
    transposed = options.transposed
    transposed = found.transposed if transposed is None else transposed
    work = options.invert or options.resize or options.value_range is not None
    for pixels, some_labels, some_names in found.pieces:
        labels += [] if some_labels is None else list(some_labels)
        names += some_names or []
        axes.add(pixels.ndim)
        pixels = _images(pixels, name)
        easy = pixels.dtype == np.uint8 and pixels.ndim == 3 and not work
        for piece in [pixels] if easy else chunks(pixels):
            piece = to_bytes(piece, options, name)
            if piece.ndim == 4:
                piece = to_gray(piece, options, name)
            if transposed:
                piece = piece.swapaxes(1, 2)
            if options.invert:
                piece = 255 - piece
            yield resized(piece, options.resize) if options.resize else piece


def _images(array: np.ndarray, name: str) -> np.ndarray:
    """An array as [N, H, W], or [N, H, W, channels] where those are several."""
    shape, side = array.shape, 0
    if array.ndim == 2:
        side = int(shape[1] ** 0.5)
        if side * side == shape[1] and side > 0:
            return array.reshape(shape[0], side, side)
    elif array.ndim == 4 and shape[1] in (1, 3) and shape[-1] > 4:
        array = array.transpose(0, 2, 3, 1)  # channels first, as PyTorch has them
    if array.ndim == 4 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim not in (3, 4) or (array.ndim == 4 and array.shape[-1] > 4):
        raise UserError(
            f"{name}: shape {shape}, expected [N, height, width], "
            "[N, height, width, 1] or [N, side * side]"
        )
    if 0 in array.shape[1:]:
        raise UserError(f"{name}: shape {shape} has images without pixels")
    return array


def _numbered(
    words: list | None, class_names: tuple[str, ...]
) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Labels as int32 and their names, from numbers or words."""
    if words is None:
        return None, class_names
    array = np.asarray(words)
    if array.dtype.kind in "iu" and 0 <= array.min() and array.max() < 1 << 16:
        known = class_names or tuple(map(str, range(array.max() + 1)))
        if array.max() >= len(known):
            raise ValueError(f"label {array.max()} is none of {len(known)} classes")
        return array.astype(np.int32), known
    found, numbers = np.unique(array.astype(str), return_inverse=True)
    return numbers.astype(np.int32), tuple(found.tolist())


def _notice(images: np.ndarray, name: str, options: Options) -> None:
    """Says what looks wrong, and what turns it."""
    some = orientation.sample(images)
    inverted = orientation.looks_inverted(some)
    if inverted and not options.invert:
        print(
            f"warning: {name}: looks like dark ink on white paper, and models and "
            "codec are made for white on black; turn it with --invert",
            file=sys.stderr,
        )
    upright = 255 - some if inverted else some
    if options.transposed is None and orientation.looks_transposed(upright):
        print(
            f"warning: {name}: the characters look transposed; turn them with "
            "--transposed=yes, or say that they are right with --transposed=no",
            file=sys.stderr,
        )


def _npy(path: pathlib.Path, chosen: str | None, options: Options) -> Found:
    return Found([(open_array(path), None, None)])


def _npz(path: pathlib.Path, chosen: str | None, options: Options) -> Found:
    labels = None

    def choose(names: list[str]) -> list[str]:
        nonlocal labels
        image = chosen
        candidates = [n for n in names if n in ("images", f"{options.split}_images")]
        if image is None and (len(names) == 1 or candidates):
            image = (candidates or names)[-1]
        if image not in names:
            near = difflib.get_close_matches(image or "", names, 1)
            hint = f"{path}:{(near or names or ['NAME'])[0]}"
            raise UserError(
                f"{path} holds the arrays {', '.join(names)}; choose one: {hint}"
            )
        label = image.replace("images", "labels")
        labels = label if label != image and label in names else None
        return [image, *([labels] if labels else [])]

    arrays = list(read_archive(path, choose).values())
    values = None
    if labels and arrays[1].shape in ((len(arrays[0]),), (len(arrays[0]), 1)):
        values = arrays[1].reshape(-1)
    return Found([(arrays[0], values, None)])


def _starts(*magics: bytes) -> Callable:
    return lambda path, head, inside: head.startswith(magics)


FORMS = {
    "dataset": Form(_by_name, lambda path, head, inside: False),
    "npy": Form(_npy, _starts(b"\x93NUMPY")),
    "npz": Form(
        _npz, lambda path, head, inside: any(n.endswith(".npy") for n in inside)
    ),
    "emnist": Form(emnist_source.read, emnist_source.knows),
    "matlab": Form(matlab.read_file, _starts(b"MATLAB 5.0")),
    "parquet": Form(parquet.read, parquet.is_parquet),
    "idx": Form(idx.read_file, _starts(idx.MAGIC)),
    "picture": Form(
        pictures.read_file, _starts(b"\x89PNG", b"\xff\xd8", b"II*\0", b"MM\0*")
    ),
    "tar": Form(pictures.read_tar, lambda path, head, _: head[257:262] == b"ustar"),
    "zipped_csv": Form(
        tables.read_zipped_csv,
        lambda path, head, inside: any(n.lower().endswith(".csv") for n in inside),
    ),
    "zip": Form(pictures.read_zip, lambda path, head, inside: head.startswith(b"PK")),
    "zarr": Form(zarr_store.read, zarr_store.is_store),
    "folder": Form(pictures.read_folder, lambda path, head, _: path.is_dir()),
    "csv": Form(tables.read_csv, tables.is_csv),
}
