"""The codec for zarr, version 3; an entry point registers it as `chunks.NAME`.

Install it with the extra [zarr]. `create` makes an array of compressed images.
"""

import asyncio
import math

import numpy as np
import zarr
from zarr.abc.codec import ArrayBytesCodec, ArrayBytesCodecPartialDecodeMixin

from emnist_jax.cli.errors import UserError
from emnist_jax.codec import container
from emnist_jax.codec.chunks import NAME, Chunks

CHUNK_PIXELS = 4096 * 784  # of a chunk, at most
CODEC = f"codec {NAME}"
DIMENSIONS = ("image", "row", "column", "channel")  # names, as xarray wants them


class Ejx(ArrayBytesCodecPartialDecodeMixin, ArrayBytesCodec):
    """Compresses chunks uint8 [n, height, width] or [n, height, width, 1].

    Of a chunk only the blocks that are asked for are decoded.
    """

    is_fixed_size = False

    def __init__(self, **options):
        """Takes the fields of `chunks.Chunks`; raises `UserError` if one is wrong."""
        self.chunks = Chunks(**options)

    def __eq__(self, other) -> bool:
        return type(other) is Ejx and self.chunks == other.chunks

    def __hash__(self) -> int:
        return hash(self.chunks)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.chunks})"

    @classmethod
    def from_dict(cls, data: dict) -> "Ejx":
        """Reads an entry of `codecs` in an array's metadata.

        Raises:
          UserError: a field is wrong or unknown, or of a later version.
        """
        codec = cls.__new__(cls)
        codec.chunks = Chunks.from_json(data.get("configuration", {}))
        return codec

    def to_dict(self) -> dict:
        """The entry of `codecs` in an array's metadata."""
        return {"name": NAME, "configuration": self.chunks.to_json()}

    def evolve_from_array_spec(self, array_spec) -> "Ejx":
        """Checks type and axes; those of a shard's chunks nobody validates."""
        check(array_spec.dtype.to_native_dtype(), tuple(array_spec.shape))
        return self

    def validate(self, *, shape, dtype, chunk_grid) -> None:
        """Raises `UserError` if chunks are not whole images of uint8."""
        check(dtype.to_native_dtype(), tuple(shape))
        if chunk_grid.chunk_shape[1:] != tuple(shape[1:]):
            raise UserError(
                f"{CODEC}: chunks={chunk_grid.chunk_shape} cut images of "
                f"{tuple(shape[1:])} apart; give {('images', *shape[1:])}"
            )

    def compute_encoded_size(self, input_byte_length: int, chunk_spec) -> int:
        """No chunk's length is known before it is compressed."""
        raise NotImplementedError

    async def _encode_single(self, chunk_data, chunk_spec):
        images = chunk_data.as_numpy_array()
        content = await asyncio.to_thread(self.chunks.encode, images)
        return chunk_spec.prototype.buffer.from_bytes(content)

    async def _decode_single(self, chunk_data, chunk_spec):
        return await self._decode(chunk_data, chunk_spec, (slice(None),))

    async def _decode_partial_single(self, byte_getter, selection, chunk_spec):
        content = await byte_getter.get(prototype=chunk_spec.prototype)
        if content is None:
            return None
        return await self._decode(content, chunk_spec, selection)

    async def _decode(self, content, chunk_spec, selection):
        def part() -> np.ndarray:
            images = self.chunks.open(content.to_bytes(), tuple(chunk_spec.shape))
            return _select(images, selection)

        found = await asyncio.to_thread(part)
        return chunk_spec.prototype.nd_buffer.from_numpy_array(np.asarray(found))


def check(dtype: np.dtype, shape: tuple[int, ...], name: str = CODEC) -> None:
    """Raises `UserError` if an array or a chunk is none of images."""
    sides = shape[1:3]
    if (
        dtype != np.uint8
        or len(shape) not in (3, 4)
        or shape[3:] not in ((), (1,))
        or not all(0 < side <= container.MOST_SIDE for side in sides)
    ):
        raise UserError(
            f"{name}: {dtype} {shape} are no images; give uint8 "
            "[N, height, width] or [N, height, width, 1]"
        )


def _select(images, selection) -> np.ndarray:
    """`np.asarray(images)[selection]`, decoding the images that are needed."""
    first, *rest = selection
    if isinstance(first, slice):
        return images[first][(slice(None), *rest)]
    first = np.asarray(first)
    needed, places = np.unique(first, return_inverse=True)
    return images[needed][(places.reshape(first.shape), *rest)]


def create(
    store, shape: tuple[int, ...], *, chunk_images: int | None = None, **options
) -> zarr.Array:
    """Makes an array of images that are compressed when they are written.

    Whoever writes several parts at once gives each writer whole chunks.

    Args:
      store: as zarr has it: a path, an address, a store; what is there stays.
      shape: [N, height, width] or [N, height, width, 1].
      chunk_images: images a chunk; None chooses about equal ones of at most 4096
        images of 28x28, some 400 kB, and of others as many pixels.
      **options: the fields of `chunks.Chunks`.

    Returns:
      The array, of uint8, to write to; images that are not written are black.

    Raises:
      UserError: an argument is wrong.
    """
    count, pixels = shape[0], math.prod(shape[1:])
    most = max(1, CHUNK_PIXELS // max(1, pixels))
    held = chunk_images or container.images_per_block(count, pixels, most)
    return zarr.create_array(
        store,
        shape=shape,
        chunks=(held, *shape[1:]),
        dtype="uint8",
        serializer=Ejx(**options),
        compressors=None,
        fill_value=0,
        dimension_names=DIMENSIONS[: len(shape)],
    )
