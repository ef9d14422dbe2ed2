"""Tables of images as Parquet, in the form of Hugging Face and others."""

import io
import itertools
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from emnist_jax.cli.errors import UserError
from emnist_jax.data import pictures
from emnist_jax.data.found import Found
from emnist_jax.data.tables import LABELS
from emnist_jax.data.values import Options
from emnist_jax.storage import files
from emnist_jax.storage.arrays import DEFLATE_RATIO

_IMAGES = ("image", "images", "img", "pixels", "image_bytes")
_ROWS = 1024  # read at once, or fewer if they take more than
_AT_ONCE = 1 << 28  # bytes
_SMALLEST = 1 << 16  # bytes that a file may always have been before it was packed
_LONGEST = 1024  # bytes of a label


def is_parquet(path: pathlib.Path, head: bytes, inside: list[str]) -> bool:
    """Whether a file is Parquet, or a folder that holds such at most one below."""
    if not path.is_dir():
        return head.startswith(b"PAR1")
    found = itertools.chain(path.glob("*.parquet"), path.glob("*/*.parquet"))
    return next(found, None) is not None


def read(path: pathlib.Path, chosen: str | None, options: Options) -> Found:
    """A Parquet file, or a folder of them of which `split` may choose some.

    The column `chosen`, or the one that is called image: bytes of PNG, structs of bytes
    and path as Hugging Face has them, or lists of numbers.
    """
    try:
        from pyarrow import parquet
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
    with files.open_regular(paths[0]) as file:
        class_names = _class_names(parquet.read_metadata(file).metadata or {})

    def pieces() -> Iterator:
        for one in paths:
            with files.open_regular(one) as file, parquet.ParquetFile(file) as table:
                left = DEFLATE_RATIO * max(os.fstat(file.fileno()).st_size, _SMALLEST)
                columns = _columns(table.schema_arrow, chosen, one)
                rows = _rows_at_once(table.metadata, columns, left)
                batches = table.iter_batches(rows, columns=columns)
                yield from _images(batches, str(one), left, options)

    return Found(pieces(), class_names)


def _columns(schema: Any, chosen: str | None, path: pathlib.Path) -> list[str]:
    """The columns of images, or their bytes, and of labels."""
    names = schema.names
    lower = {name.lower(): name for name in reversed(names)}
    image = chosen or next((lower[n] for n in _IMAGES if n in lower), None)
    if image not in names:
        raise UserError(
            f"{path} has the columns {', '.join(names[:8])}; choose that of images: "
            f"{path}:{names[0]}"
        )
    fields = schema.field(image).type
    if str(fields).startswith("struct"):
        if fields.get_field_index("bytes") < 0:
            raise ValueError(f"its column {image} has no field bytes")
        image = f"{image}.bytes"
    label = next((lower[n] for n in LABELS if n in lower), None)
    plain = label and schema.field(label).type.num_fields == 0
    return [image, *([label] if plain else [])]


def _rows_at_once(metadata: Any, columns: list[str], most: int) -> int:
    """How many rows of `columns` never take more than `_AT_ONCE` bytes.

    What a row group holds may be a single value that every row repeats.

    Raises:
      ValueError: the file claims more than `most` bytes or numbers.
    """
    packed, numbers, value = 0, 0, 1
    for group in (metadata.row_group(n) for n in range(metadata.num_row_groups)):
        packed += group.total_byte_size
        for column in (group.column(n) for n in range(group.num_columns)):
            if column.physical_type != "BYTE_ARRAY":
                image = column.path_in_schema.startswith(columns[0])
                numbers += column.num_values if image else 0
            elif column.path_in_schema in columns:
                value = max(value, column.total_uncompressed_size)
    if max(packed, numbers) > most:
        raise ValueError("it claims more than fits in it")
    row = max(value, 8 * numbers // max(1, metadata.num_rows))
    return max(1, min(_ROWS, _AT_ONCE // row))


def _class_names(metadata: dict[bytes, bytes]) -> tuple[str, ...]:
    """Names of the classes as Hugging Face notes them; () where it does not."""
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        labels = [f for f in features.values() if f.get("_type") == "ClassLabel"]
        return tuple(map(str, labels[0]["names"]))
    except (KeyError, ValueError, TypeError, AttributeError, IndexError):
        return ()


def _images(
    batches: Iterator, name: str, left: int, options: Options
) -> Iterator[tuple[np.ndarray, list | None, list[str] | None]]:
    """Pieces of images with their labels; pictures may have `left` bytes."""
    columns = map(_columns_of, batches)
    first = next(columns, None)
    if first is None:
        return
    columns = itertools.chain([first], columns)
    if str(first[0].type) not in ("binary", "large_binary"):
        for values, words in columns:
            yield _numbers(values), words, None
        return
    labels = []

    def contents() -> Iterator[pictures.Picture]:
        nonlocal left
        number = itertools.count()
        for values, words in columns:
            labels.extend(words or [])
            for row in values:
                content = row.as_py()
                left -= len(content)
                if left < 0:
                    raise ValueError("it claims more than fits in it")
                yield f"row {next(number)}", io.BytesIO(content), len(content)

    for pixels, _, _ in pictures.pieces(contents(), name, options):
        yield pixels, labels[: len(pixels)] or None, None
        del labels[: len(pixels)]


def _columns_of(batch: Any) -> tuple[Any, list | None]:
    """Images and labels of a batch."""
    import pyarrow.compute as compute

    images, labels = batch.column(0), batch.columns[1:]
    missing = images.null_count
    if str(images.type).startswith("struct"):
        images = images.field("bytes")
    if missing or images.null_count:
        raise ValueError("it has rows without an image")
    if labels and str(labels[0].type) in ("string", "large_string", "binary"):
        if (compute.max(compute.binary_length(labels[0])).as_py() or 0) > _LONGEST:
            raise ValueError(f"it has a label of over {_LONGEST} characters")
    return images, labels[0].to_pylist() if labels else None


def _numbers(lists: Any) -> np.ndarray:
    """Lists, or lists of lists, of numbers as an array."""
    import pyarrow.compute as compute

    shape = [len(lists)]
    while hasattr(lists.type, "value_type"):
        lengths = compute.list_value_length(lists).unique().to_pylist()
        if len(lengths) != 1 or lengths[0] is None:
            raise ValueError("its images are lists of different lengths")
        shape.append(lengths[0])
        lists = lists.flatten()
    if lists.null_count:
        raise ValueError("it has pixels without a value")
    return lists.to_numpy(zero_copy_only=False).reshape(shape)
