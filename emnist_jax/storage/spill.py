"""Bytes of any length in constant memory: those that are many lie on the disk."""

import io
import tempfile
from collections.abc import Iterable
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from emnist_jax.cli.errors import UserError

_IN_MEMORY = 1 << 28  # bytes from which on they lie in a temporary file
_AT_ONCE = 1 << 20


def keep(parts: Iterable[npt.ArrayLike | bytes], name: str) -> np.ndarray:
    """The bytes of all parts one after the other, read-only uint8 [bytes].

    A lot of them lie in a temporary file without a name, of which memory holds what
    is in use.

    Raises:
      UserError: the disk is full; `name` says where the bytes come from.
    """
    file, size = io.BytesIO(), 0
    for part in parts:
        if not (count := memoryview(part).nbytes):
            continue
        size += count
        try:
            if size > _IN_MEMORY and isinstance(file, io.BytesIO):
                spilled = tempfile.TemporaryFile(buffering=0)
                _write(spilled, file.getbuffer())
                file = spilled
            _write(file, part)
        except OSError as error:
            raise UserError(
                f"{name}: cannot keep {size:,} bytes in {tempfile.gettempdir()}: "
                f"{error.strerror}; name another folder with TMPDIR"
            ) from error
    if isinstance(file, io.BytesIO):
        return np.frombuffer(file.getbuffer().toreadonly(), np.uint8)
    return np.memmap(file, np.uint8, "r", shape=(size,))


def _write(file: BinaryIO, part: npt.ArrayLike | bytes) -> None:
    left = memoryview(part).cast("B")
    while left:
        left = left[file.write(left) :]


def read(file: BinaryIO, size: int, name: str) -> np.ndarray:
    """Reads as `keep` at most `size` bytes, or all that follow if they are fewer."""

    def parts() -> Iterable[bytes]:
        left = size
        while left and (part := file.read(min(left, _AT_ONCE))):
            left -= len(part)
            yield part

    return keep(parts(), name)
