"""Calls of a compiled coder: what it is given, and what comes back."""

import functools
import math
from collections.abc import Callable, Iterator

import numpy as np

from emnist_jax.codec import context, rans, values
from emnist_jax.codec.integer_form import EXPONENTIAL, ORDER
from emnist_jax.codec.integer_model import IntegerModel
from emnist_jax.codec.native import job, language, network, weights
from emnist_jax.codec.native.language import LANES
from emnist_jax.codec.native.machine import Machine

IN_FLIGHT = 512 * 784  # pixels of the blocks whose images take turns, at least a block
SLACK = 32  # bytes after the last image, which vectors may read


class Job:
    """Blocks whose images are coded together, and the arrays for it."""

    def __init__(self, machine, model, counts, shape, max_error, weight=None):
        self._machine, self.counts, self.max_error = machine, counts, max_error
        self.height, self.width = shape
        self.lanes = rans.lanes_of(counts[0])
        images = [np.arange(count) for count in counts]
        numbers = range(len(counts))
        cut = values.spans(max_error).exists if max_error else np.zeros((0, 0))
        self.arrays = {
            **_constants(model, self._machine.group),
            **room(model.config, self._machine.group, sum(counts), cut.shape[1]),
            "sizes": np.array(
                [
                    *(sum(counts), *shape, model.config.blocks),
                    *(max_error, *cut.shape, weight or 0, weight is not None),
                ],
                "i8",
            ),
            "pixels": np.zeros(sum(counts) * self._padded_size() + SLACK, "u1"),
            "lane": np.concatenate(
                [
                    n * self.lanes + i % self.lanes
                    for n, i in zip(numbers, images, strict=True)
                ]
            ),
            "block": np.repeat(numbers, counts),
        }

    def _padded_size(self) -> int:
        return (self.height + context.ROWS) * (self.width + 2 * context.COLUMNS)

    def code(self, report: Callable[[float], None]) -> np.ndarray:
        """Codes all pixels; returns them, uint8 [images, height, width]."""
        for row in range(self.height):
            self._call(self._machine.code, row, row + 1)
            report(1 / self.height)
        pixels = self.arrays["pixels"][:-SLACK].reshape(sum(self.counts), -1)
        pixels = pixels.reshape(len(pixels), self.height + context.ROWS, -1)
        inner = pixels[:, context.ROWS :, context.COLUMNS : -context.COLUMNS]
        return np.ascontiguousarray(inner)

    def finish(self) -> None:
        """The encoder's second half."""
        self._call(self._machine.finish)

    def _call(self, function: Callable, *arguments: int) -> None:
        table = job.table(self.arrays)
        status = function(table.ctypes.data, len(table), *arguments)
        if status == language.DAMAGE:
            raise rans.CorruptStream("a stream ends too early")
        assert status == language.DONE, f"bound {status} does not hold"


@functools.lru_cache(maxsize=8)
def _constants(model: IntegerModel, group: int) -> dict[str, np.ndarray]:
    """What a job needs of a model, and the format's tables."""
    return {
        **weights.pack(model.arrays, model.config, group),
        "exponential": EXPONENTIAL,
        "order": ORDER,
        "costs": values.COSTS,
        "bin_of_value": values.BIN_OF_VALUE.astype("u1"),
        "place_in_bin": values.PLACE_IN_BIN.astype("u1"),
        "bin_starts": np.append(values.BIN_STARTS, 256),
        "bin_widths": values.BIN_WIDTHS.astype("i4"),
    }


def room(config, group: int, images: int, spans: int) -> dict[str, np.ndarray]:
    """Empty arrays to work in."""
    width, gate, fine = (
        weights.up(units)
        for units in (config.width, config.gate_width, config.fine_width)
    )
    tiles = -(-images // LANES)
    lanes = {
        "inputs": weights.up(context.INPUTS) // group,
        "trunk": (max(config.blocks, 1) + 1) * max(width, gate) // group,
        "hidden": tiles * width // group,
        "detail": fine // group,
        "sums": fine,
        "logits": weights.up(values.BINS),
        "bins": tiles,
        "places": 1,
        "exist": 1,
        "ends": max(values.BINS, spans) + 1,
        "fine_ends": values.WIDEST + 1,
        "mass": 257,
    }
    return {
        **{name: np.zeros(lines * LANES, "i4") for name, lines in lanes.items()},
        "bias": np.zeros(max(width, gate), "i4"),
        "rows": np.zeros(LANES * network.ROW, "u1"),
        "hard": np.zeros(images, "u1"),
        "chosen": np.zeros(images, "i8"),
    }


def _in_flight(counts: list[int], pixels: int) -> Iterator[slice]:
    """Cuts blocks into groups that are coded together."""
    start = held = 0
    for index, count in enumerate(counts):
        if index > start and (held + count) * pixels > IN_FLIGHT:
            yield slice(start, index)
            start, held = index, 0
        held += count
    yield slice(start, len(counts))


def _share(report: Callable, counts: list[int], part: slice) -> Callable:
    """Reports the shares of a part as those of all."""
    share = sum(counts[part]) / sum(counts)
    return lambda done: report(done * share)


def encode(
    machine: Machine,
    model: IntegerModel,
    blocks: list[np.ndarray],
    max_error: int,
    report: Callable[[float], None],
    weight: int | None,
) -> tuple[list[bytes], np.ndarray]:
    """As `pixel_coding.encode`, with a machine that encodes."""
    counts, shape = [len(block) for block in blocks], blocks[0].shape[1:]
    streams, decoded = [], []
    for part in _in_flight(counts, math.prod(shape)):
        held = Job(machine, model, counts[part], shape, max_error, weight)
        found, pixels = code(held, blocks[part], _share(report, counts, part))
        streams += found
        decoded.append(pixels)
    return streams, np.concatenate(decoded)


def code(
    held: Job, blocks: list[np.ndarray], report: Callable
) -> tuple[list[bytes], np.ndarray]:
    """Encodes the blocks of a job; returns streams and pixels, as `encode`."""
    symbols = 3 - (held.max_error > 0)  # of a pixel, at most
    room = np.array(held.counts) * symbols * held.height * held.width
    end = np.cumsum(room)
    held.arrays |= {
        "source": np.concatenate(blocks).reshape(-1),
        "state": np.full(held.lanes * len(blocks), rans.LOWEST, "u4"),
        "at": end - room,
        "begin": end - room,
        "end": end,
        "symbols": np.empty(end[-1], "u4"),
        "lanes": np.empty(end[-1], "i8"),
        "words": np.empty(end[-1], "u2"),
    }
    pixels = held.code(report)
    held.finish()
    states = held.arrays["state"].astype("<u4").reshape(len(blocks), -1)
    words = held.arrays["words"]
    starts = held.arrays["at"]
    return [
        state.tobytes() + words[first:last].astype("<u2").tobytes()
        for state, first, last in zip(states, starts, end, strict=True)
    ], pixels


def decode(
    machine: Machine,
    model: IntegerModel,
    streams: list[bytes],
    counts: list[int],
    shape: tuple[int, int],
    bound: tuple[int, int | None],
    report: Callable[[float], None],
) -> list[np.ndarray]:
    """As `pixel_coding.decode`, with a machine that decodes.

    `bound` is the largest error, and 0 for lossy files, else None.
    """
    decoded = []
    for part in _in_flight(counts, math.prod(shape)):
        held = Job(machine, model, counts[part], shape, *bound)
        read_streams(held, streams[part])
        pixels = held.code(_share(report, counts, part))
        a = held.arrays
        rans.check_end(a["at"], a["end"], a["state"])
        decoded += np.split(pixels, np.cumsum(counts[part])[:-1])
    return decoded


def read_streams(held: Job, streams: list[bytes]) -> None:
    """Gives a job what a decoder reads."""
    states = rans.read_states(streams, held.lanes)
    words = [stream[4 * held.lanes :] for stream in streams]
    lengths = np.array([len(stream) // 2 for stream in words], "i8")
    end = np.cumsum(lengths)
    held.arrays |= {
        "state": states.reshape(-1),
        "at": end - lengths,
        "end": end,
        "words": np.frombuffer(b"".join(words), "<u2").astype("u2"),
    }
