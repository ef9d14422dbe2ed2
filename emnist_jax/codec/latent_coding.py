"""Lossy: quantised latents of an autoencoder, coded with static integer tables.

Latents are turned into a basis in which steps of one size cost equal error along every
direction (`latent_basis`), rounded to levels, of two the one that costs less error and
bits together, and coded with a table a direction. Basis, levels and tables go into the
file; the decoder's parameters stay in the run, and only their digest goes along.
Entropy decoding holds no floating point, so files decode to the same levels everywhere;
pixels are the decoder's, and may differ by a grey level between machines.
"""

import dataclasses
import math
import struct
import zlib
from collections.abc import Callable

import numpy as np

from emnist_jax.cli.errors import UserError
from emnist_jax.codec import container, rans
from emnist_jax.codec.model_file import digest
from emnist_jax.codec.rans import Grid, Reader, Writer, lanes_of
from emnist_jax.storage.arrays import format_size

HEAD = struct.Struct("<4sHB")  # digest of the decoder, dimensions, bits
MOST_DIMENSIONS = 1 << 12
MOST_BITS = 8
REFINE = 8  # steps of the search for better latents
# What a bit is worth of a squared step: the slope of step**2 / 12 over the bits.
WORTH = 2 * math.log(2) / 12


@dataclasses.dataclass(frozen=True)
class LatentCoder:
    """Codes levels of latents.

    Attributes:
      run: the trained autoencoder; has `encode` and `decode`.
      latents_of: gives latents float32 [n, D] of uint8 [n, height, width, 1].
      improve: from this coder, such images and levels uint8 [n, D] to better levels.
      low: float32 [D], the latents that levels 0 stand for.
      step: float32 [D], the distance of two levels of each direction.
      scale: float32 [D], of the directions.
      directions: int8 [D, D].
      frequency: int32 [D, levels], each at least 1, rows that sum to 65536.
    """

    run: object
    latents_of: Callable
    improve: Callable
    low: np.ndarray
    step: np.ndarray
    scale: np.ndarray
    directions: np.ndarray
    frequency: np.ndarray

    @property
    def basis(self) -> np.ndarray:
        """What one level of each direction adds to the latents, float64 [D, D]."""
        return self.step[:, None].astype(float) * self.scale[None] * self.directions

    @property
    def bits(self) -> int:
        """Of a level before it is entropy-coded."""
        return self.frequency.shape[1].bit_length() - 1

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one image's levels."""
        return (len(self.low),)

    def symbols(self, images: np.ndarray) -> np.ndarray:
        """Levels uint8 [n, D] of uint8 [n, height, width]."""
        if not len(images):
            return np.zeros((0, *self.shape), np.uint8)
        images = np.asarray(images)[..., None]
        return self.improve(self, images, self.levels(self.latents_of(images)))

    def levels(self, latents: np.ndarray) -> np.ndarray:
        """Levels uint8 [n, D] of latents [n, D], cheap in error and bits together."""
        places = (np.asarray(latents) - self.low[None]) @ np.linalg.inv(self.basis)
        return cheapest(places, bits_of(self.frequency)).astype(np.uint8)

    def latents(self, levels: np.ndarray) -> np.ndarray:
        """Latents float32 [n, D] of levels uint8 [n, D]."""
        return (self.low[None] + levels @ self.basis).astype(np.float32)

    def images(self, levels: np.ndarray) -> np.ndarray:
        """Reconstructions uint8 [n, height, width] of levels uint8 [n, D]."""
        pixels = np.asarray(self.run.decode(self.latents(levels)))[..., 0]
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


def bits_of(frequency: np.ndarray) -> np.ndarray:
    """Bits float64 [D, levels] that each level costs."""
    return -np.log2(frequency / rans.TOTAL)


def cheapest(places: np.ndarray, bits: np.ndarray) -> np.ndarray:
    """Levels int [n, D] that cost least error and bits together.

    Args:
      places: float [n, D], in levels.
      bits: [D, levels], of each level.
    """
    levels = np.empty(places.shape, int)
    beside = np.array([[-1, 0, 1]])  # no level further off is worth its bits
    for dimension, costs in enumerate(bits):
        place = places[:, dimension, None]
        tried = np.clip(np.floor(place + 0.5).astype(int) + beside, 0, len(costs) - 1)
        cost = (place - tried) ** 2 + WORTH * costs[tried]
        best = cost.argmin(axis=1)[:, None]
        levels[:, dimension] = np.take_along_axis(tried, best, 1)[:, 0]
    return levels


def check_run(run, needed: str) -> None:
    """Raises `UserError`, which says what is `needed`, unless `run` is a run."""
    if run is None:
        raise UserError(needed)
    if not (hasattr(run, "encode") and hasattr(run, "decode")):
        raise UserError(f"run={run} is no run: give what emnist_jax.load_run returns")


def check_size(run, size: tuple[int, int], name: str) -> None:
    """Raises `UserError` if images of the name are not of the run's size."""
    own = getattr(run, "decoder_image_size", size)  # any object may stand for a run
    if own != size:
        raise UserError(
            f"{name}: images of {format_size(size)} pixels, but run is of "
            f"{format_size(own)}"
        )


def decoder_digest(run) -> bytes:
    """4 bytes that name the parameters of the run's decoder."""
    import jax  # takes a second, which other modes need not wait for

    leaves = jax.tree.leaves(run.decoder[1])
    return digest(b"".join(np.asarray(leaf, np.float32).tobytes() for leaf in leaves))


def pack(coder: LatentCoder) -> bytes:
    """What of a coder goes into the file."""
    head = HEAD.pack(decoder_digest(coder.run), len(coder.low), coder.bits)
    floats = np.concatenate([coder.low, coder.step, coder.scale]).astype("<f4")
    body = floats.tobytes() + coder.directions.astype("<i1").tobytes()
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
    check_run(run, f"{name} holds latents: give run=RUN, their autoencoder")
    if embedded is None or len(embedded) < HEAD.size or digest(embedded) != head.digest:
        raise UserError(f"{name} is damaged: its tables do not match their checksum")
    made_by, dimensions, bits = HEAD.unpack(embedded[: HEAD.size])
    if bits != head.parameter or not 0 < dimensions <= MOST_DIMENSIONS:
        raise UserError(f"{name} is damaged: its tables have impossible sizes")
    turned = bool(head.features & container.TURNED)
    floats = dimensions * (3 if turned else 2)
    start = 4 * floats + dimensions * dimensions * turned
    size = start + 2 * dimensions * 2**bits
    try:
        body = zlib.decompressobj().decompress(embedded[HEAD.size :], size + 1)
    except zlib.error as error:
        raise UserError(f"{name} is damaged: {error}") from error
    if len(body) != size:
        raise UserError(f"{name} is damaged: its tables are of the wrong length")
    low, step, *scale = np.frombuffer(body, "<f4", floats).reshape(-1, dimensions)
    directions = np.eye(dimensions, dtype=np.int8)
    if turned:
        directions = np.frombuffer(body, "<i1", dimensions**2, 4 * floats)
    frequency = np.frombuffer(body, "<u2", offset=start).astype(np.int32) + 1
    frequency = frequency.reshape(dimensions, 2**bits)
    coder = LatentCoder(
        run,
        run.encode,
        lambda coder, images, levels: levels,
        low,
        step,
        scale[0] if turned else np.ones_like(low),
        directions.reshape(dimensions, dimensions),
        frequency,
    )
    with np.errstate(over="ignore", invalid="ignore"):
        largest = np.abs(low) + 255 * np.abs(coder.basis).sum(axis=0)
    finite = (largest < np.finfo(np.float32).max).all()  # no NaN is
    if (frequency.sum(axis=1) != rans.TOTAL).any() or not finite:
        raise UserError(f"{name} is damaged: its tables are impossible")
    if made_by != decoder_digest(run):
        raise UserError(f"{name} was made with another autoencoder than run names")
    check_size(run, (head.height, head.width), name)
    return coder
