"""Range asymmetric numeral systems over many lanes at once, in NumPy.

A block has `lanes` coders with a 32-bit state each, in [2**16, 2**32) between
symbols. Lane by lane they share one stream of 16-bit words: within a step, lanes
that need a word take the next ones in lane order. A symbol is a half-open interval
[start, start + frequency) of 0..65535; the whole range is a symbol that costs
nothing and changes nothing, which is how a lane sits out a step.

Arrays carry several blocks, [blocks, lanes], which never mix. Each block spreads its
images over lanes: image i sits in lane i % lanes and takes part in round i // lanes.
A step codes at most one symbol of every image.
"""

import math

import numpy as np

PRECISION = 16
TOTAL = 1 << PRECISION
LOWEST = np.uint32(1 << 16)  # the smallest state between symbols
MOST_LANES = 64
IMAGES_A_LANE = 16  # or more; a lane's state costs about 3 bytes
_MASK = np.uint32(TOTAL - 1)
_SHIFT = np.uint32(PRECISION)


class CorruptStream(ValueError):
    """The words are not what an encoder can have written."""


def encode(start: np.ndarray, frequency: np.ndarray) -> list[bytes]:
    """Codes symbols given in the order in which they are to be decoded.

    Args:
      start: uint16 [steps, blocks, lanes], first point of each symbol's interval.
      frequency: uint16 [steps, blocks, lanes], the interval's length minus 1.

    Returns:
      One stream a block: the lanes' states, then words, all little-endian.
    """
    steps, blocks, lanes = start.shape
    state = np.full((blocks, lanes), LOWEST)
    # Written from the end, because a decoder meets the last word first.
    words = np.empty((blocks, steps * lanes), np.uint16)
    end = words.shape[1]
    position = np.full(blocks, end)
    for step in range(steps - 1, -1, -1):
        if not (step_frequency := frequency[step]).min() < TOTAL - 1:
            continue  # every lane sits out
        length = step_frequency.astype(np.uint32) + np.uint32(1)
        full = (state >> _SHIFT) >= length
        if full.any():
            block, lane = np.nonzero(full)
            counts = np.bincount(block, minlength=blocks)
            position -= counts
            first = np.cumsum(counts) - counts
            place = np.arange(len(block)) - first[block] + position[block]
            words[block, place] = (state[block, lane] & _MASK).astype(np.uint16)
            state[block, lane] >>= _SHIFT
        quotient, rest = np.divmod(state, length)
        state = (quotient << _SHIFT) + rest + start[step]
    return [
        state[block].astype("<u4").tobytes()
        + words[block, position[block] :].astype("<u2").tobytes()
        for block in range(blocks)
    ]


def read_states(streams: list[bytes], lanes: int) -> np.ndarray:
    """The states that streams begin with, uint32 [blocks, lanes].

    Raises:
      CorruptStream: a stream is too short or holds an impossible state.
    """
    if min(map(len, streams)) < 4 * lanes or any(len(s) % 2 for s in streams):
        raise CorruptStream("a stream is too short for its lanes")
    heads = b"".join(stream[: 4 * lanes] for stream in streams)
    state = np.frombuffer(heads, "<u4").astype(np.uint32).reshape(-1, lanes)
    if (state < LOWEST).any():
        raise CorruptStream("a state is out of range")
    return state


def check_end(position: np.ndarray, end: np.ndarray, state: np.ndarray) -> None:
    """Checks that every stream ends as encoders leave it.

    Raises:
      CorruptStream: words are left, or a state is not the initial one.
    """
    if (position != end).any() or (state != LOWEST).any():
        raise CorruptStream("a stream does not end where its images do")


class Decoder:
    """Takes symbols out of streams, one step of all lanes at a time."""

    def __init__(self, streams: list[bytes], lanes: int):
        """Reads the states.

        Raises:
          CorruptStream: a stream is too short or holds an impossible state.
        """
        self.state = read_states(streams, lanes)
        blocks, length = len(streams), max(map(len, streams))
        # One spare zero word a lane: a read past the end is noticed in `finish`.
        joined = b"".join(s.ljust(length + 2 * lanes, b"\0") for s in streams)
        raw = np.frombuffer(joined, np.uint8).reshape(blocks, -1)
        self._words = raw[:, 4 * lanes :].copy().view("<u2").astype(np.uint32)
        self._flat = self._words.reshape(-1)
        self._base = np.arange(blocks) * self._words.shape[1]
        self._end = np.array([len(s) for s in streams]) // 2 - 2 * lanes
        self._position = np.zeros(blocks, np.int64)

    def slots(self) -> np.ndarray:
        """The point of 0..65535 that lies in each lane's next symbol, uint32."""
        return self.state & _MASK

    def advance(self, start: np.ndarray, frequency: np.ndarray) -> None:
        """Removes the symbols [start, start + frequency) that hold `slots()`.

        Raises:
          CorruptStream: a stream has ended.
        """
        state = self.state
        state = frequency * (state >> _SHIFT) + (state & _MASK) - start
        empty = state < LOWEST
        rank = empty.cumsum(axis=1)
        counts = rank[:, -1]
        block, lane = np.nonzero(empty)
        if len(block):
            place = (self._base + self._position)[block] + rank[block, lane] - 1
            state[block, lane] = (state[block, lane] << _SHIFT) | self._flat[place]
            self._position += counts
            if (self._position > self._end).any():
                raise CorruptStream("a stream ends too early")
        self.state = state

    def finish(self) -> None:
        """Checks that every stream ends as encoders leave it.

        Raises:
          CorruptStream: words are left, or a state is not the initial one.
        """
        check_end(self._position, self._end, self.state)


def lanes_of(images: int) -> int:
    """Number of lanes of a block of `images`."""
    return min(MOST_LANES, max(1, images // IMAGES_A_LANE))


class Grid:
    """Where the images of a batch sit: blocks x rounds x lanes, some places empty.

    Attributes:
      lanes: of each block.
      exists: bool [places], which places hold an image.
      shape: blocks, rounds, lanes.
    """

    def __init__(self, counts: list[int]):
        """Takes the number of images in each block; all have as many lanes."""
        self.lanes = lanes_of(counts[0])
        self.rounds = math.ceil(max(counts) / self.lanes)
        size = self.rounds * self.lanes
        self.exists = np.arange(size)[None] < np.array(counts)[:, None]
        self.exists = self.exists.reshape(-1)  # [places]
        self.shape = (len(counts), self.rounds, self.lanes)

    def by_round(self, values: np.ndarray) -> np.ndarray:
        """[places] to [rounds, blocks, lanes]."""
        return values.reshape(self.shape).swapaxes(0, 1)


class Writer:
    """Knows the images' values and notes the intervals of symbols."""

    def __init__(self, grid: Grid, values: np.ndarray):
        """Takes uint8 [places, height, width]."""
        self._grid, self._values = grid, values
        self._start, self._frequency = [], []

    def take(self, places, cumulative, row, column, symbols_of) -> np.ndarray:
        """Codes a symbol of some images.

        Args:
          places: int [n], ascending; whose turn it is.
          cumulative: int [n, symbols], the end of each symbol's interval.
          row: where the values lie that decide the symbols.
          column: likewise.
          symbols_of: from values, one for each of `places`, to symbols.

        Returns:
          int [n], the symbols.
        """
        symbols = symbols_of(self._values[places, row, column]).astype(np.intp)
        index = np.arange(len(places))
        high = cumulative[index, symbols]
        low = np.where(symbols > 0, cumulative[index, symbols - 1], 0)
        start = np.zeros(len(self._grid.exists), np.uint16)
        frequency = np.full(len(self._grid.exists), TOTAL - 1, np.uint16)
        start[places], frequency[places] = low, high - low - 1
        self._start.append(self._grid.by_round(start))
        self._frequency.append(self._grid.by_round(frequency))
        return symbols

    def streams(self) -> list[bytes]:
        """Returns one stream a block."""
        return encode(np.concatenate(self._start), np.concatenate(self._frequency))


class Reader:
    """Takes symbols from streams."""

    def __init__(self, grid: Grid, streams: list[bytes]):
        """Takes one stream a block."""
        self._grid = grid
        self._decoder = Decoder(streams, grid.lanes)

    def take(self, places, cumulative, row, column, symbols_of) -> np.ndarray:
        """Decodes a symbol of some images; arguments and result as `Writer.take`."""
        del row, column, symbols_of
        count, symbols = cumulative.shape
        # One more line for places that sit out: the whole range is symbol 0.
        table = np.zeros((count + 1, symbols + 1), np.uint32)
        table[:count, 1:] = cumulative
        table[count, 1:] = TOTAL
        line = np.full(len(self._grid.exists), count)
        line[places] = np.arange(count)
        flat, width = table.reshape(-1), symbols + 1
        found = np.empty(self._grid.shape, np.intp)
        for round_, lines in enumerate(self._grid.by_round(line)):
            if lines.min() == count:
                continue
            ends = table[lines, 1:]  # [blocks, lanes, symbols]
            symbol = (ends <= self._decoder.slots()[..., None]).sum(axis=-1)
            found[:, round_] = symbol
            at = lines * width + symbol
            start = flat[at]
            self._decoder.advance(start, flat[at + 1] - start)
        return found.reshape(-1)[places]

    def finish(self) -> None:
        """Checks the streams' ends; see `Decoder.finish`."""
        self._decoder.finish()
