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
_AT_ONCE = 1 << 26  # bytes
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
            with files.open_regular(one) as file:
                metadata = parquet.read_metadata(file)
                left = DEFLATE_RATIO * max(os.fstat(file.fileno()).st_size, _SMALLEST)
                columns = _columns(metadata.schema.to_arrow_schema(), chosen, one)
                rows = _rows_at_once(metadata, columns[0], left)
                # What is repeated is read once, and as often as it says never lies
                # in memory.
                repeated = _of_bytes(metadata.schema, columns)
                with parquet.ParquetFile(file, read_dictionary=repeated) as table:
                    for batch in table.iter_batches(rows, columns=columns):
                        left -= _size(batch.column(0))
                        if left < 0:
                            raise ValueError("it claims more than fits in it")
                        yield from _of_batch(batch, one, options)

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


def _rows_at_once(metadata: Any, image: str, most: int) -> int:
    """How many rows a batch may have; refuses a file that claims more than `most`."""
    packed, count = 0, 0
    for group in (metadata.row_group(n) for n in range(metadata.num_row_groups)):
        packed += group.total_byte_size
        for column in (group.column(n) for n in range(group.num_columns)):
            if column.path_in_schema.startswith(image):
                count += column.num_values
    if max(packed, count) > most:
        raise ValueError("it claims more than fits in it")
    row = max(packed, 8 * count) // max(1, metadata.num_rows)
    return max(1, min(_ROWS, _AT_ONCE // max(1, row)))


def _of_bytes(schema: Any, columns: list[str]) -> list[str]:
    """Those of the columns that hold bytes or text."""
    found = (schema.column(n) for n in range(len(schema.names)))
    texts = {column.path for column in found if column.physical_type == "BYTE_ARRAY"}
    return [name for name in columns if name in texts]


def _size(images: Any) -> int:
    """Bytes of a batch's images, as often as each is repeated."""
    import pyarrow.compute as compute

    if str(images.type).startswith("struct"):
        images = images.field("bytes")
    if not hasattr(images, "dictionary"):
        return 0
    lengths = compute.binary_length(images.dictionary)
    return compute.sum(lengths.take(images.indices)).as_py() or 0


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
    labels = _labels(batch.column(1)) if batch.num_columns > 1 else None
    if str(images.type).startswith("struct"):
        images = images.field("bytes")
    if images.null_count:
        raise ValueError("it has rows without an image")
    if not hasattr(images, "dictionary"):
        yield _numbers(images), labels, None
        return
    rows = (row.as_py() for row in images)
    contents = ((f"row {n}", io.BytesIO(x), len(x)) for n, x in enumerate(rows))
    start = 0
    for pixels, _, _ in pictures.pieces(contents, str(path), options):
        some = labels[start : start + len(pixels)] if labels else None
        start += len(pixels)
        yield pixels, some, None


def _labels(column: Any) -> list:
    if not hasattr(column, "dictionary"):
        return column.to_pylist()
    words = column.dictionary.to_pylist()
    if max(map(len, words), default=0) > _LONGEST:
        raise ValueError(f"it has a label of over {_LONGEST} characters")
    return [None if n is None else words[n] for n in column.indices.to_pylist()]


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
