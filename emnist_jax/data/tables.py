"""Tables of images as CSV."""

import codecs
import itertools
import math
import pathlib
import re
import string
import zipfile
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from emnist_jax.cli.errors import UserError
from emnist_jax.data.archive import VARIANTS
from emnist_jax.data.found import Found
from emnist_jax.data.values import Options
from emnist_jax.storage import files, zipped

_ROWS = 1024  # read at once
_LONGEST = 1 << 20  # characters of a line
_FIRST = [bytes([c]) for c in f'{string.ascii_letters}{string.digits}"-.'.encode()]
LABELS = ("label", "labels", "class", "target", "character")


def is_csv(path: pathlib.Path, head: bytes, inside: list[str]) -> bool:
    """Whether a file's first bytes are a line of numbers or names between commas."""
    head = head.removeprefix(codecs.BOM_UTF8)
    return head[:1] in _FIRST and b"," in head and head.isascii()


def read_csv(path: pathlib.Path, chosen: str | None, options: Options) -> Found:
    """A row an image: its pixels, and a label before or after them.

    Those of a file that has EMNIST's name, as Kaggle has it, lie transposed.
    """
    del chosen, options

    def pieces() -> Iterator:
        with files.open_regular(path) as file:
            yield from rows_of(file)

    variant = emnist_variant(path.name)
    names = VARIANTS[variant].class_names if variant else ()
    return Found(pieces(), names, True if variant else None)


def read_zipped_csv(path: pathlib.Path, chosen: str | None, options: Options) -> Found:
    """The same from a zip: `chosen`, or the only one, or the one of `split`."""
    with files.open_regular(path) as file, zipfile.ZipFile(file) as archive:
        names = [n for n in archive.namelist() if n.lower().endswith(".csv")]
    wanted = chosen or (options.split and f"{options.split}.csv") or ""
    fitting = [name for name in names if name.endswith(wanted)]
    if chosen is None and len(names) == 1:
        fitting = names
    if len(fitting) != 1:
        raise UserError(
            f"{path} holds {', '.join(names[:8])}; choose one: {path}:{names[0]}"
        )

    def pieces() -> Iterator:
        with files.open_regular(path) as file, zipfile.ZipFile(file) as archive:
            with archive.open(zipped.member(archive, fitting[0])) as member:
                yield from rows_of(member)

    variant = emnist_variant(fitting[0])
    names = VARIANTS[variant].class_names if variant else ()
    return Found(pieces(), names, True if variant else None)


def emnist_variant(name: str) -> str | None:
    """The variant of EMNIST whose file has this name; None where it is another."""
    words = re.split("[-.]", pathlib.PurePosixPath(name).name.lower())
    known = len(words) > 1 and words[0] == "emnist" and words[1] in VARIANTS
    return words[1] if known else None


def rows_of(file: BinaryIO) -> Iterator[tuple[np.ndarray, np.ndarray | None, None]]:
    """Images [n, H * W] and labels of the lines of a CSV, some thousands at a time."""
    lines = iter(lambda: file.readline(_LONGEST), b"")
    first = next(lines, b"").removeprefix(codecs.BOM_UTF8)
    cells = [cell.strip().strip('"') for cell in first.decode().split(",")]
    column = None  # of the label
    try:
        [float(cell) for cell in cells]
        lines = itertools.chain([first], lines)
    except ValueError:  # a header
        named = [n for n, cell in enumerate(cells) if cell.lower() in LABELS]
        column = named[0] if named else None
    count = len(cells)
    if column is None and math.isqrt(count) ** 2 != count:
        column = 0
    if math.isqrt(count - (column is not None)) ** 2 != count - (column is not None):
        raise ValueError(
            f"its {count} columns are no square of pixels, with or without a label"
        )
    whole = None  # whether its numbers are, and so bytes
    while chunk := list(itertools.islice(lines, _ROWS)):
        if max(map(len, chunk)) >= _LONGEST:
            raise ValueError(f"it has a line of over {_LONGEST} characters")
        table = np.loadtxt(chunk, delimiter=",", ndmin=2, dtype=np.float64)
        if table.shape[1] != count:
            raise ValueError(f"a row has {table.shape[1]} columns, not {count}")
        labels = None
        if column is not None:
            labels = _whole(table[:, column])
            table = np.delete(table, column, axis=1)
        small = np.clip(table, 0, 255).astype(np.uint8)
        if whole is None:
            whole = (small == table).all()
        elif whole and not (small == table).all():
            raise ValueError("its numbers are bytes at first and others below")
        yield small if whole else table, labels, None


def _whole(column: np.ndarray) -> np.ndarray:
    whole = column.astype(np.int64)
    return whole if (whole == column).all() else column
