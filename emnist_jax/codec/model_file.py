"""Model files: the integers of a pixel model, its sizes and a checksum."""

import functools
import hashlib
import os
import pathlib
import struct
import zlib

import numpy as np

from emnist_jax.cli.errors import UserError
from emnist_jax.codec.integer_form import (
    MAX_SHIFT,
    MIN_SHIFT,
    PixelModelConfig,
    layer_shapes,
    table_shapes,
)
from emnist_jax.codec.integer_model import IntegerModel
from emnist_jax.storage import files, paths

MAGIC = b"EJM1"
SIZES = struct.Struct("<HBHHBB")  # width, blocks, fine and gate width, height, columns
FOLDER = pathlib.Path(__file__).parent / "models"
LARGEST = 1 << 24  # bytes of a model file; more than any needs
WIDEST = 512  # a sum of 512 products stays below 2**24
# Models that ship with the package; all but two with the first error they are best at.
FROM_ERROR = {"default": 0, "near": 1, "near4": 3, "coarse": 7}
NAMES = "fast", "small", *FROM_ERROR
# What those were before: files made with them are read.
EARLIER = "default-1", "fast-1", "fast-2"


def name_for(max_error: int) -> str:
    """The shipped model for an error that pixels may have."""
    return max(
        (name for name, error in FROM_ERROR.items() if error <= max_error),
        key=FROM_ERROR.__getitem__,
    )


def array_shapes(config: PixelModelConfig) -> dict[str, tuple[tuple, str]]:
    """Shape and type of each array, in the order of the file."""
    shapes = {}
    for name, shape in layer_shapes(config).items():
        shapes[f"{name}.weight"] = (shape, "i1")
        shapes[f"{name}.shift"] = (shape[1:], "u1")
        shapes[f"{name}.bias"] = (shape[1:], "<i2")
    for name, shape in table_shapes(config).items():
        shapes[name] = (shape, "<i2")
    return shapes


def to_bytes(model: IntegerModel) -> bytes:
    """Returns the model file of `model`."""
    config = model.config
    sizes = SIZES.pack(
        config.width,
        config.blocks,
        config.fine_width,
        config.gate_width,
        config.height,
        config.columns,
    )
    body = b"".join(
        model.arrays[name].astype(kind).tobytes()
        for name, (_, kind) in array_shapes(config).items()
    )
    return MAGIC + sizes + digest(sizes + body) + zlib.compress(body, 9)


def digest(content: bytes) -> bytes:
    """The 4 bytes by which a compressed file names its model."""
    return hashlib.sha256(content).digest()[:4]


def from_bytes(content: bytes, name: str) -> tuple[IntegerModel, bytes]:
    """Reads a model file.

    Args:
      content: the whole file.
      name: what to call it in errors.

    Returns:
      The model and its digest.

    Raises:
      UserError: the content is damaged, foreign or of sizes that cannot be exact.
    """
    start = len(MAGIC) + SIZES.size
    if len(content) < start + 4 or content[: len(MAGIC)] != MAGIC:
        raise UserError(f"{name} is no pixel model: it does not start with {MAGIC!r}")
    sizes = content[len(MAGIC) : start]
    width, blocks, fine_width, gate_width, height, columns = SIZES.unpack(sizes)
    if not (
        0 < width <= WIDEST
        and blocks <= 16
        and 0 < fine_width <= WIDEST
        and 0 < gate_width <= WIDEST
        and height
        and columns
    ):
        raise UserError(f"{name} is damaged: sizes out of range")
    config = PixelModelConfig(width, blocks, fine_width, gate_width, height, columns)
    shapes = array_shapes(config)
    lengths = [int(np.prod(s)) * np.dtype(kind).itemsize for s, kind in shapes.values()]
    inflate = zlib.decompressobj()
    try:
        body = inflate.decompress(content[start + 4 :], sum(lengths) + 1)
    except zlib.error as error:
        raise UserError(f"{name} is damaged: {error}") from error
    stored = content[start : start + 4]
    if len(body) != sum(lengths) or digest(sizes + body) != stored:
        raise UserError(f"{name} is damaged: its checksum does not match")
    arrays, offset = {}, 0
    for (array, (shape, kind)), length in zip(shapes.items(), lengths, strict=True):
        flat = np.frombuffer(body, kind, offset=offset, count=int(np.prod(shape)))
        arrays[array] = flat.reshape(shape).astype(np.dtype(kind).newbyteorder("="))
        offset += length
    for array, values in arrays.items():
        if (
            array.endswith(".shift")
            and not ((values >= MIN_SHIFT) & (values <= MAX_SHIFT)).all()
        ):
            raise UserError(f"{name} is damaged: a shift is out of range")
    return IntegerModel(config, arrays), stored


# Small files each name their model; reading it again takes as long as a few images.
_read_before = functools.lru_cache(maxsize=8)(from_bytes)


def load(name: str | os.PathLike | bytes) -> tuple[IntegerModel, bytes, bytes]:
    """Reads a model that ships with the package, or a model file.

    Args:
      name: one of `NAMES`, a path, or the content of a model file.

    Returns:
      The model, its digest and its file.

    Raises:
      UserError: there is no such model, or its file is bad.
    """
    if isinstance(name, bytes):
        return *_read_before(name, "the model"), name
    try:
        path = pathlib.Path(name)
        if str(name) in (*NAMES, *EARLIER):
            path = FOLDER / f"{name}.ejm"
        with files.open_regular(path) as file:
            content = file.read(LARGEST + 1)
    except (OSError, TypeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"model={name}: {reason}; give a model file or one of {', '.join(NAMES)}"
        ) from error
    if len(content) > LARGEST:
        raise UserError(f"model={name}: is no pixel model, it is too large for one")
    return *_read_before(content, str(path)), content


@functools.cache
def find(wanted: bytes) -> IntegerModel:
    """Returns the model of the package with digest `wanted`.

    Raises:
      UserError: none has it.
    """
    for name in (*NAMES, *EARLIER):
        model, found, _ = load(name)
        if found == wanted:
            return model
    raise UserError(
        f"the file was made with pixel model {wanted.hex()}, which does not ship "
        "with this version; give it with model=FILE"
    )


def save(path: str | os.PathLike, model: IntegerModel) -> None:
    """Writes a model file; raises `UserError` as `paths.check_output`."""
    with files.write_atomically(paths.check_output(path)) as temporary:
        temporary.write_bytes(to_bytes(model))
