"""Tables of images: CSV, and Parquet as Hugging Face writes it."""

import codecs
import io
import itertools
import json
import math
import os
import pathlib
import re
import string
import zipfile
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

from emnist_jax.cli.errors import UserError
from emnist_jax.data import pictures
from emnist_jax.data.archive import VARIANTS
from emnist_jax.data.found import Found
from emnist_jax.data.values import Options
from emnist_jax.storage import files
from emnist_jax.storage.arrays import DEFLATE_RATIO

_ROWS = 1024  # read at once
_LONGEST = 1 << 20  # characters of a line
_FIRST = [bytes([c]) for c in f'{string.ascii_letters}{string.digits}"-.'.encode()]
_LABELS = ("label", "labels", "class", "target", "character")
_IMAGES = ("image", "images", "img", "pixels", "image_bytes")


def is_csv(path: pathlib.Path, head: bytes, inside: list[str]) -> bool:
    """Whether a file's first bytes are a line of numbers or names between commas."""
    head = head.removeprefix(codecs.BOM_UTF8)
    return head[:1] in _FIRST and b"," in head and head.isascii()


def is_parquet(path: pathlib.Path, head: bytes, inside: list[str]) -> bool:
    """Whether a file is Parquet, or a folder that holds such at most one below."""
    if not path.is_dir():
        return head.startswith(b"PAR1")
    found = itertools.chain(path.glob("*.parquet"), path.glob("*/*.parquet"))
    return next(found, None) is not None


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
            method = archive.getinfo(fitting[0]).compress_type
            if method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f"{fitting[0]} is packed by method {method}")
            with archive.open(fitting[0]) as member:
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
        named = [n for n, cell in enumerate(cells) if cell.lower() in _LABELS]
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


def read_parquet(path: pathlib.Path, chosen: str | None, options: Options) -> Found:
    """A Parquet file, or a folder of them of which `split` may choose some.

    The column `chosen`, or the one that is called image: bytes of PNG, structs of bytes
    and path as Hugging Face has them, or lists of numbers.
    """
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise UserError(
            f"{path}: Parquet needs pyarrow: pip install 'emnist-jax[parquet]'"
        ) from error
    paths = [path]
    if path.is_dir():
        paths = sorted(path.rglob("*.parquet"))
        if parts := [p for p in paths if p.name.startswith(("train", "test"))]:
            wanted = options.split or "test"
            paths = [p for p in parts if p.name.startswith(wanted)]
        if not paths:
            raise UserError(f"{path} holds no Parquet file of the split {wanted}")
    class_names: tuple[str, ...] = ()
    with files.open_regular(paths[0]) as file, parquet.ParquetFile(file) as table:
        class_names = _class_names(table.schema_arrow.metadata or {})

    def pieces() -> Iterator:
        for one in paths:
            with files.open_regular(one) as file, parquet.ParquetFile(file) as table:
                _expect_small(table.metadata, os.fstat(file.fileno()).st_size)
                columns = _columns(table.schema_arrow.names, chosen, one)
                for batch in table.iter_batches(_ROWS, columns=columns):
                    yield from _of_batch(batch, one, options)

    return Found(pieces(), class_names)


def _expect_small(metadata: Any, held: int) -> None:
    """Refuses a file that claims more than its bytes can hold."""
    groups = [metadata.row_group(n) for n in range(metadata.num_row_groups)]
    if sum(group.total_byte_size for group in groups) > DEFLATE_RATIO * held:
        raise ValueError("it claims more than fits in it")


def _columns(names: list[str], chosen: str | None, path: pathlib.Path) -> list[str]:
    """The columns of images and of labels."""
    lower = {name.lower(): name for name in reversed(names)}
    image = chosen or next((lower[n] for n in _IMAGES if n in lower), None)
    if image not in names:
        raise UserError(
            f"{path} has the columns {', '.join(names[:8])}; choose that of images: "
            f"{path}:{names[0]}"
        )
    label = next((lower[n] for n in _LABELS if n in lower), None)
    return [image, *([label] if label else [])]


def _class_names(metadata: dict[bytes, bytes]) -> tuple[str, ...]:
    """Names of the classes as Hugging Face notes them; () where it does not."""
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        labels = [f for f in features.values() if f.get("_type") == "ClassLabel"]
        return tuple(map(str, labels[0]["names"]))
    except (KeyError, ValueError, TypeError, AttributeError, IndexError):
        return ()


def _of_batch(
    batch: Any, path: pathlib.Path, options: Options
) -> Iterator[tuple[np.ndarray, list | None, list[str] | None]]:
    images = batch.column(0)
    labels = batch.column(1).to_pylist() if batch.num_columns > 1 else None
    kind = str(images.type)
    if images.null_count:
        raise ValueError("it has rows without an image")
    if kind.startswith("struct"):
        images = images.field("bytes")
    elif kind not in ("binary", "large_binary"):
        leaf = images.type
        while hasattr(leaf, "value_type"):
            leaf = leaf.value_type
        yield np.array(images.to_pylist(), leaf.to_pandas_dtype()), labels, None
        return
    rows = (row.as_py() for row in images)
    contents = ((f"row {n}", io.BytesIO(x), len(x)) for n, x in enumerate(rows))
    start = 0
    for pixels, _, _ in pictures.pieces(contents, str(path), options):
        some = labels[start : start + len(pixels)] if labels else None
        start += len(pixels)
        yield pixels, some, None
