"""The codec for numcodecs; an entry point registers it as `chunks.NAME`.

Install it with the extra [zarr].
"""

import numpy as np
from numcodecs.abc import Codec
from numcodecs.compat import ensure_bytes, ndarray_copy

from emnist_jax.codec.chunks import NAME, Chunks


class Ejx(Codec):
    """Compresses chunks uint8 [n, height, width] or [n, height, width, 1]."""

    codec_id = NAME

    def __init__(self, **options):
        """Takes the fields of `chunks.Chunks`; raises `UserError` if one is wrong."""
        self.chunks = Chunks(**options)

    def encode(self, buf) -> bytes:
        """Compresses a chunk; raises `UserError` if it is none of images."""
        return self.chunks.encode(np.asarray(buf))

    def decode(self, buf, out=None) -> np.ndarray:
        """Decompresses a chunk, into `out` if it is given.

        Raises:
          UserError: the chunk is damaged or foreign.
        """
        return ndarray_copy(self.chunks.open(ensure_bytes(buf)).read(), out)

    def get_config(self) -> dict:
        """The configuration, of plain values."""
        return {"id": self.codec_id, **self.chunks.to_json()}

    @classmethod
    def from_config(cls, config) -> "Ejx":
        """Reads what `get_config` returned, without the id."""
        codec = cls.__new__(cls)
        codec.chunks = Chunks.from_json(config)
        return codec

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.chunks})"
