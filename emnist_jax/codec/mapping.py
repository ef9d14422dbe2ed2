"""Compressed files as buffers."""

import mmap
import os
import stat

from emnist_jax.cli.errors import UserError
from emnist_jax.codec import container
from emnist_jax.codec.container import Head


def read_head(path: str | os.PathLike) -> tuple[Head, int]:
    """Returns the head of a compressed file, and the file's size in bytes.

    Raises:
      UserError: it cannot be read, or its head is damaged or foreign.
    """
    content = map_file(path)
    head, size = container.parse(content, len(content), str(path)), len(content)
    return head, size


def map_file(path: str | os.PathLike) -> mmap.mmap | bytes:
    """The content of a file, or all that comes out of a pipe; a map is to be closed.

    Raises:
      UserError: it cannot be read, or is empty.
    """
    try:
        with open(os.fspath(path), "rb") as file:
            status = os.fstat(file.fileno())
            if stat.S_ISREG(status.st_mode) and status.st_size:
                return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            content = file.read(len(container.MAGICS[0]))
            if content in container.MAGICS:  # else whatever comes does not matter
                content += file.read()
    except (OSError, TypeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot read {path}: {reason}") from error
    if not content:
        raise UserError(f"{path} is no compressed image file: it is empty")
    return content
