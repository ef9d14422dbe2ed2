"""Lossy: quantised latents of an autoencoder, coded with static integer tables.

Each latent dimension is rounded to 2**bits levels between its smallest and largest
value and coded with a table of its own. Levels and tables go into the file; the
decoder's parameters stay in the run, and only their digest goes along. Entropy
decoding holds no floating point, so files decode to the same levels everywhere;
pixels are the decoder's, and may differ by a grey level between machines.
"""

import dataclasses
import struct
import zlib
from collections.abc import Callable

import numpy as np

from emnist_jax.cli.errors import UserError
from emnist_jax.codec import rans
from emnist_jax.codec.model_file import digest
from emnist_jax.codec.rans import Grid, Reader, Writer, lanes_of
from emnist_jax.storage.arrays import format_size

HEAD = struct.Struct("<4sHB")  # digest of the decoder, dimensions, bits
MOST_DIMENSIONS = 1 << 12


@dataclasses.dataclass(frozen=True)
class LatentCoder:
    """Codes levels of latents.

    Attributes:
      run: the trained autoencoder; has `encode` and `decode`.
      low: float32 [D], the latent that level 0 stands for.
      step: float32 [D], the distance of two levels; 0 for a constant dimension.
      frequency: int32 [D, levels], each at least 1, rows that sum to 65536.
    """

    run: object
    low: np.ndarray
    step: np.ndarray
    frequency: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one image's levels."""
        return (len(self.low),)

    def symbols(self, images: np.ndarray) -> np.ndarray:
        """Levels uint8 [n, D] of uint8 [n, height, width]."""
        if not len(images):
            return np.zeros((0, *self.shape), np.uint8)
        return self._round(np.asarray(self.run.encode(np.asarray(images)[..., None])))

    def _round(self, latents: np.ndarray) -> np.ndarray:
        step = np.where(self.step > 0, self.step, 1)[None]
        levels = np.floor((latents - self.low[None]) / step + 0.5)
        top = self.frequency.shape[1] - 1
        return np.clip(levels, 0, top).astype(np.uint8)

    def images(self, levels: np.ndarray) -> np.ndarray:
        """Reconstructions uint8 [n, height, width] of levels uint8 [n, D]."""
        latents = self.low[None] + levels.astype(np.float32) * self.step[None]
        pixels = np.asarray(self.run.decode(latents))[..., 0]
        return np.clip(np.floor(pixels * 255 + 0.5), 0, 255).astype(np.uint8)

    def plain(self, levels: np.ndarray, decoded: np.ndarray | None) -> np.ndarray:
        """What is stored if coding does not pay: the levels themselves."""
        return levels

    def accepts(self, levels: np.ndarray, found: np.ndarray) -> bool:
        """Whether `found` may stand for `levels`."""
        return np.array_equal(levels, found)

    def lanes(self, count: int) -> int:
        """Lanes of a block of `count` images."""
        return lanes_of(count)

    def _code(self, grid: Grid, take: Callable, levels: np.ndarray) -> None:
        places = np.flatnonzero(grid.exists)
        for dimension, row in enumerate(np.cumsum(self.frequency, axis=1)):
            table = np.broadcast_to(row, (len(places), len(row)))
            levels[places, dimension] = take(places, table, 0, dimension, np.asarray)

    def encode(
        self, blocks: list[np.ndarray], report: Callable
    ) -> tuple[list[bytes], np.ndarray]:
        """Codes blocks of levels, uint8 [n, D] each, with as many lanes each."""
        grid = Grid([len(block) for block in blocks])
        levels = np.zeros((len(grid.exists), *self.shape), np.uint8)
        levels[grid.exists] = np.concatenate(blocks)
        writer = Writer(grid, levels[:, None].copy())
        self._code(grid, writer.take, levels)
        report(1.0)
        return writer.streams(), levels[grid.exists]

    def decode(
        self, streams: list[bytes], counts: list[int], report: Callable
    ) -> list[np.ndarray]:
        """Decodes what `encode` returned.

        Raises:
          rans.CorruptStream: a stream is damaged in a way that shows here.
        """
        grid = Grid(counts)
        reader = Reader(grid, streams)
        levels = np.zeros((len(grid.exists), *self.shape), np.uint8)
        self._code(grid, reader.take, levels)
        reader.finish()
        report(1.0)
        return np.split(levels[grid.exists], np.cumsum(counts)[:-1])


def fit(run, images: np.ndarray, bits: int, name: str) -> tuple[LatentCoder, bytes]:
    """Makes levels and tables for images.

    Args:
      run: the trained autoencoder.
      images: uint8 [N, height, width], of the run's size.
      bits: 1 to 8, for 2**bits levels.
      name: what to call the images in errors.

    Returns:
      The coder, and what of it goes into the file.

    Raises:
      UserError: no run, bits out of range, or no images.
    """
    _check_run(run, "mode=latent needs run=RUN, a trained autoencoder")
    if not len(images):
        raise UserError(f"{name} holds no images: nothing to fit levels to")
    _check_size(run, images.shape[1:], name)
    latents = np.asarray(run.encode(np.asarray(images)[..., None]), np.float32)
    levels = 2**bits
    low = latents.min(axis=0)
    with np.errstate(over="ignore", invalid="ignore"):
        step = (latents.max(axis=0) - low) / np.float32(levels - 1)
    if not np.isfinite([low, step]).all():
        raise UserError(f"{name}: the latents that run gives them are not finite")
    if len(low) > MOST_DIMENSIONS:
        raise UserError(f"run has {len(low)} latents; at most {MOST_DIMENSIONS} fit")
    coder = LatentCoder(run, low, step, np.ones((1, levels), np.int32))
    symbols = coder._round(latents)
    counts = np.stack([np.bincount(column, minlength=levels) for column in symbols.T])
    coder = dataclasses.replace(coder, frequency=normalise(counts))
    return coder, _pack(coder, bits)


def _check_run(run, needed: str) -> None:
    if run is None:
        raise UserError(needed)
    if not (hasattr(run, "encode") and hasattr(run, "decode")):
        raise UserError(f"run={run} is no run: give what emnist_jax.load_run returns")


def _check_size(run, size: tuple[int, int], name: str) -> None:
    own = getattr(run, "decoder_image_size", size)  # any object may stand for a run
    if own != size:
        raise UserError(
            f"{name}: images of {format_size(size)} pixels, but run is of "
            f"{format_size(own)}"
        )


def normalise(counts: np.ndarray) -> np.ndarray:
    """Frequencies int32 [D, levels] of at least 1 that sum to 65536 in each row."""
    share = counts * (rans.TOTAL - counts.shape[1]) // counts.sum(axis=1, keepdims=True)
    share = share.astype(np.int32) + 1
    share[np.arange(len(share)), share.argmax(axis=1)] += rans.TOTAL - share.sum(axis=1)
    return share


def decoder_digest(run) -> bytes:
    """4 bytes that name the parameters of the run's decoder."""
    import jax  # takes a second, which other modes need not wait for

    leaves = jax.tree.leaves(run.decoder[1])
    return digest(b"".join(np.asarray(leaf, np.float32).tobytes() for leaf in leaves))


def _pack(coder: LatentCoder, bits: int) -> bytes:
    head = HEAD.pack(decoder_digest(coder.run), len(coder.low), bits)
    body = coder.low.astype("<f4").tobytes() + coder.step.astype("<f4").tobytes()
    body += (coder.frequency - 1).astype("<u2").tobytes()
    return head + zlib.compress(body, 9)


def restore(run, embedded: bytes | None, head, name: str) -> LatentCoder:
    """Reads what `fit` put into a file.

    Args:
      run: the trained autoencoder that made it.
      embedded: the bytes.
      head: the file's head.
      name: the file, for errors.

    Raises:
      UserError: no run, another run than the file's, or damage.
    """
    _check_run(run, f"{name} holds latents: give run=RUN, their autoencoder")
    if embedded is None or len(embedded) < HEAD.size or digest(embedded) != head.digest:
        raise UserError(f"{name} is damaged: its tables do not match their checksum")
    made_by, dimensions, bits = HEAD.unpack(embedded[: HEAD.size])
    if bits != head.parameter or not 0 < dimensions <= MOST_DIMENSIONS:
        raise UserError(f"{name} is damaged: its tables have impossible sizes")
    size = dimensions * (8 + 2 * 2**bits)
    try:
        body = zlib.decompressobj().decompress(embedded[HEAD.size :], size + 1)
    except zlib.error as error:
        raise UserError(f"{name} is damaged: {error}") from error
    if len(body) != size:
        raise UserError(f"{name} is damaged: its tables are of the wrong length")
    floats = np.frombuffer(body, "<f4", 2 * dimensions).astype(np.float32)
    frequency = np.frombuffer(body, "<u2", offset=8 * dimensions).astype(np.int32) + 1
    frequency = frequency.reshape(dimensions, 2**bits)
    if (frequency.sum(axis=1) != rans.TOTAL).any() or not np.isfinite(floats).all():
        raise UserError(f"{name} is damaged: its tables are impossible")
    if made_by != decoder_digest(run):
        raise UserError(f"{name} was made with another autoencoder than run names")
    _check_size(run, (head.height, head.width), name)
    return LatentCoder(run, floats[:dimensions], floats[dimensions:], frequency)
