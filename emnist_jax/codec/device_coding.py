"""Pixels to streams and back with JAX, on whatever device it has.

Contexts, networks, frequencies and the entropy coder's states stay on the device, which
waits for the host once a row of pixels. Files are those of `native`, bit for bit.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from emnist_jax.codec import context, integer_network, rans
from emnist_jax.codec.device_loop import (
    Task,
    Weight,
    choose_row,
    decode_row,
    write_row,
)
from emnist_jax.codec.integer_model import IntegerModel
from emnist_jax.codec.rans import LOWEST
from emnist_jax.devices import processes

STEPS = 3  # symbols of a pixel at most, each a word at most


class _Batch:
    """Where images lie on the device: blocks are rounded up to a power of two."""

    def __init__(
        self,
        model: IntegerModel,
        counts: list[int],
        max_error: int,
        means: bool,
        weighs: bool = False,
    ):
        processes.check_fork()
        self.grid = rans.Grid(counts)
        _, rounds, lanes = self.grid.shape
        self.blocks = 1 << (len(counts) - 1).bit_length()
        shape = self.blocks, rounds, lanes
        self.task = Task(shape, model.config.blocks, max_error, means, weighs)
        self.places = np.zeros(self.blocks * rounds * lanes, bool)
        self.places[: len(self.grid.exists)] = self.grid.exists
        self.exists = jnp.asarray(self.places)
        self.operands = integer_network.operands_of(model.arrays, model.config)

    def empty(self, height: int, width: int) -> jax.Array:
        """`padded` before the first pixel."""
        height, width = height + context.ROWS, width + 2 * context.COLUMNS
        return jnp.zeros((len(self.places), height, width), jnp.uint8)

    def pixels(self, padded: jax.Array) -> np.ndarray:
        """The images in `padded`, uint8 [N, height, width]."""
        inner = padded[:, context.ROWS :, context.COLUMNS : -context.COLUMNS]
        return np.asarray(inner)[self.places]


def encode(
    model: IntegerModel,
    blocks: list[np.ndarray],
    max_error: int,
    report: Callable[[float], None],
    weight: int | None,
) -> tuple[list[bytes], np.ndarray]:
    """As `pixel_coding.encode`."""
    counts, means = [len(block) for block in blocks], weight is not None
    batch = _Batch(model, counts, max_error, means, bool(weight))
    height, width = blocks[0].shape[1:]
    values = np.zeros((len(batch.places), height, width), np.uint8)
    values[batch.places] = np.concatenate(blocks)
    worth = Weight(*(jnp.uint32(part) for part in divmod(weight or 0, 1 << 16)))
    padded, rows = batch.empty(height, width), []
    for row in range(height):
        padded, *intervals = choose_row(
            *(batch.task, batch.operands, worth, batch.exists),
            *(jnp.int32(row), padded, jnp.asarray(values[:, row])),
        )
        rows.append(intervals)
        jax.block_until_ready(padded)
        report(1 / height)
    state = jnp.full((batch.blocks, batch.grid.lanes), LOWEST)
    words = [[] for _ in blocks]
    for intervals in reversed(rows):
        state, written = write_row(state, *intervals)
        word, is_written = (np.asarray(array).swapaxes(0, 1) for array in written)
        for block, found in enumerate(words):
            found.insert(0, word[block][is_written[block]].astype("<u2").tobytes())
    states = np.asarray(state).astype("<u4")
    streams = [
        b"".join([states[block].tobytes(), *found]) for block, found in enumerate(words)
    ]
    return streams, batch.pixels(padded)


def decode(
    model: IntegerModel,
    streams: list[bytes],
    counts: list[int],
    shape: tuple[int, int],
    max_error: int,
    report: Callable[[float], None],
    lossy: bool,
) -> list[np.ndarray]:
    """As `pixel_coding.decode`."""
    batch = _Batch(model, counts, max_error, lossy)
    lanes = batch.grid.lanes
    state = np.full((batch.blocks, lanes), LOWEST)
    state[: len(streams)] = rans.read_states(streams, lanes)
    end = np.array([len(stream) // 2 - 2 * lanes for stream in streams])
    # Images can take no more, whatever a file holds; `check_end` sees what is left.
    read = min(end.max(), STEPS * math.prod(shape) * len(batch.places) // batch.blocks)
    most = 1 << int(read).bit_length()  # a power of two: few different programs
    words = np.zeros((batch.blocks, most), np.uint16)
    for block, stream in enumerate(streams):
        found = np.frombuffer(stream, "<u2")[2 * lanes :][:most]
        words[block, : len(found)] = found
    words, taken = jnp.asarray(words), jnp.zeros(batch.blocks, jnp.int32)
    carry = batch.empty(*shape), jnp.asarray(state), taken
    for row in range(shape[0]):
        where = batch.exists, jnp.int32(row)
        carry = decode_row(batch.task, batch.operands, words, *where, carry)
        taken = np.asarray(carry[2])[: len(streams)]
        if (taken > end).any():
            raise rans.CorruptStream("a stream ends too early")
        report(1 / shape[0])
    rans.check_end(taken, end, np.asarray(carry[1])[: len(streams)])
    return np.split(batch.pixels(carry[0]), np.cumsum(counts)[:-1])
