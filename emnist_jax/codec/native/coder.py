"""The coder of docs/codec_format.md: all pixels of the images of several blocks."""

import contextlib
import functools
from collections.abc import Callable, Iterator

from emnist_jax.codec import context
from emnist_jax.codec.native import job, near
from emnist_jax.codec.native.dots import Form
from emnist_jax.codec.native.language import DAMAGE, LANES, Array, Value
from emnist_jax.codec.native.layers import Layers
from emnist_jax.codec.native.program import Program
from emnist_jax.codec.values import BINS, WIDEST


class Coder:
    """Writes the loop over pixels, for an encoder or a decoder.

    Its steps are those of the format, each over all images whose turn it is, in order:
    images of one block follow each other, and blocks do not mix.
    """

    def __init__(self, program: Program, form: Form, encodes: bool, lossy: bool):
        self.program, self.form = program, form
        self.encodes, self.lossy = encodes, lossy
        self.layers = Layers(program, form, uniform=lossy)
        if lossy:
            self.add_bin, self.spans = near.add_bin(program), near.spans(program)
        program.function("code", ("i8", None, None), self._rows)
        if encodes:
            program.function("finish", ("i8",), _finish)

    def _rows(self, p: Program, table: Array, start: Value, stop: Value) -> None:
        """Codes the rows from `start` to `stop`."""
        self.arrays = self.layers.arrays = a = job.read(p, table)
        sizes = [a["sizes"][index] for index in range(len(job.SIZES))]
        self.images, self.height, self.width, self.blocks = sizes[:4]
        self.error, self.phases, self.most_spans = sizes[4:7]
        self.weight, self.means = sizes[7:]
        self.stride = self.width + 2 * context.COLUMNS
        self.size = (self.height + context.ROWS) * self.stride
        with p.loop(stop, start=start) as self.row:
            with p.loop(self.width) as self.column:
                self.corner = self.row * self.stride + self.column
                self._gate(self._easy())
                (self._span if self.lossy else self._bin_and_place)(self._hard())

    def _easy(self) -> Value:
        """Chooses the images whose pixel is easy; the others become `hard`."""
        p, a = self.program, self.arrays
        count = p.variable(0)
        west = self.corner + context.ROWS * self.stride + context.COLUMNS - 1
        north = west - self.stride
        with p.loop(self.images) as image:
            first = image * self.size
            ink = a["pixels"][first + west]
            for column in range(3):
                ink |= a["pixels"][first + north + column]
            a["hard"][image] = (ink > 0).as_number()
            a["chosen"][count.value] = image
            count.value += ink.equals(0).as_number()
        return count.value

    def _hard(self) -> Value:
        """Chooses the images that are `hard`."""
        p, a = self.program, self.arrays
        count = p.variable(0)
        with p.loop(self.images) as image:
            a["chosen"][count.value] = image
            count.value += a["hard"][image]
        return count.value

    @contextlib.contextmanager
    def _tiles(self, count: Value) -> Iterator[tuple[Value, Value]]:
        """`for start, size in` the tiles of the chosen images."""
        with self.program.loop(count, step=LANES) as start:
            yield start, (count - start).at_most(LANES)

    def _images(self, start: Value, size: Value) -> tuple:
        """A tile's images, as `network.inputs` takes them."""
        a = self.arrays
        windows, chosen = a["pixels"].part(self.corner), a["chosen"].part(start)
        return windows, chosen, size, self.size, self.stride

    def _gate(self, count: Value) -> None:
        """Step 1: whether easy pixels are 0."""
        p, a = self.program, self.arrays
        tables = "gate_row", "gate_column"
        self.layers.place("gate_first", tables, self.row, self.column)
        with self._tiles(count) as (start, size):
            self.layers.gate(self._images(start, size))
            with p.loop(size) as j:
                image = a["chosen"][start + j]
                escapes = functools.partial(self._escapes, a["ends"].part(j))
                symbol = self._take(image, j, "ends", 2, escapes)
                a["hard"][image] = symbol

    def _bin_and_place(self, count: Value) -> None:
        """Step 2: all bins, then all places."""
        p, a = self.program, self.arrays
        length = self.layers.length("first")
        self.layers.place("first", ("row", "column"), self.row, self.column)
        with self._tiles(count) as (start, size):
            last = self.layers.coarse(self._images(start, size), self.blocks)
            kept = start // LANES * length
            with p.loop(length, step=LANES) as at:
                a["hidden"].copy(kept + at, last, at)
            with p.loop(size) as j:
                a["bins"][start + j] = self._take(
                    a["chosen"][start + j], j, "ends", BINS, a["bin_of_value"].item
                )
        with self._tiles(count) as (start, size):
            self.layers.fine_sums(a["hidden"].part(start // LANES * length))
            bins = a["bins"].vector(start)
            self.layers.fine(bins, a["bin_widths"].gather(bins))
            with p.loop(size) as j:
                image = a["chosen"][start + j]
                place = self._take(
                    image, j, "fine_ends", WIDEST, a["place_in_bin"].item
                )
                self._paint(image, a["bin_starts"][a["bins"][start + j]] + place)

    def _span(self, count: Value) -> None:
        """Step 3: spans."""
        p, a = self.program, self.arrays
        self.layers.place("first", ("row", "column"), self.row, self.column)
        with self._tiles(count) as (start, size):
            last = self.layers.coarse(self._images(start, size), self.blocks)
            self.layers.fine_sums(last)
            with p.loop(BINS) as bin_:
                first = a["bin_starts"][bin_]
                width = a["bin_starts"][bin_ + 1] - first
                self.layers.fine(bin_, p.vector(width))
                fine = a["fine_ends"], width, a["mass"], first
                p.call(self.add_bin, a["ends"], bin_, *fine)
            p.call(
                self.spans,
                *(a["order"], a["mass"], self.error, self.phases, self.most_spans),
                *(a["ends"], a["bins"]),
            )
            with p.loop(size) as j:
                image, phase = a["chosen"][start + j], a["bins"][j]
                span = self._take(
                    image,
                    *(j, "ends", self.most_spans),
                    functools.partial(self._span_of, j, phase),
                )
                self._paint(image, self._decoded(j, span, phase))

    def _escapes(self, ends: Array, value: Value) -> Value:
        """Whether an easy pixel is coded as more than 0."""
        far = (value > self.error).as_number()
        if not self.lossy:
            return far
        costs, zero = self.arrays["costs"], ends[LANES]
        saved = costs[65536 - zero] - costs[zero]
        worth = (value * value * self.weight > saved) | self.weight.equals(0)
        return far * worth.as_number()

    def _decoded(self, j: Value, span: Value, phase: Value) -> Value:
        """What a span of pixel `j` of the tile decodes to."""
        mass = self.arrays["mass"].part(j)
        return near.decoded(self.program, mass, self.means, span, phase, self.error)

    def _span_of(self, j: Value, phase: Value, value: Value) -> Value:
        """The span of pixel `j` of the tile: its own, or the best by weight."""
        p, costs = self.program, self.arrays["costs"]
        ends = self.arrays["ends"].part(j)
        best = p.variable(1 << 60)
        found = p.variable(near.span_of(value, phase, self.error))
        spans = self.most_spans * (self.weight > 0).as_number()
        with p.loop(spans) as span:
            off = value - self._decoded(j, span, phase)
            frequency = ends[(span + 1) * LANES] - ends[span * LANES]
            cost = costs[frequency] + off * off * self.weight
            better = (cost < best.value) & (frequency > 0)
            found.value = span.where(better, found.value)
            best.value = cost.where(better, best.value)
        return found.value

    def _paint(self, image: Value, value: Value) -> None:
        """Notes what a pixel has been decoded to."""
        inner = context.ROWS * self.stride + context.COLUMNS
        self.arrays["pixels"][image * self.size + self.corner + inner] = value

    def _take(
        self,
        image: Value,
        j: Value,
        ends: str,
        symbols: int | Value,
        symbol_of: Callable[[Value], Value],
    ) -> Value:
        """Codes the symbol of an image, pixel `j` of the tile; returns it.

        Args:
          image: number of the image.
          j: number of the pixel.
          ends: array of the cumulative frequencies.
          symbols: how many there are.
          symbol_of: from the pixel's value to the symbol.
        """
        p, a = self.program, self.arrays
        lane, block = a["lane"][image], a["block"][image]
        ends = a[ends].part(j)
        at = a["at"][block]
        if self.encodes:
            place = (image * self.height + self.row) * self.width + self.column
            symbol = symbol_of(a["source"][place])
        else:
            state = p.variable(a["state"][lane])
            slot = state.value & 65535
            symbol = _search(p, ends, symbols, slot)
        start = ends[symbol * LANES]
        frequency = ends[(symbol + 1) * LANES] - start
        if self.encodes:
            with p.when(at >= a["end"][block]):
                p.result(DAMAGE)
            a["symbols"][at] = (frequency - 1) << 16 | start
            a["lanes"][at] = lane
            a["at"][block] = at + 1
            return symbol
        state.value = frequency * (state.value >> 16) + slot - start
        with p.when(state.value < 65536):
            with p.when(at >= a["end"][block]):
                p.result(DAMAGE)
            state.value = (state.value << 16) | a["words"][at]
            a["at"][block] = at + 1
        a["state"][lane] = state.value
        return symbol


def _search(p: Program, ends: Array, symbols: int | Value, slot: Value) -> Value:
    """The symbol in whose interval `slot` lies."""
    if isinstance(symbols, int):  # no branches, which a processor would guess wrong
        found = p.number(0)
        for symbol in range(1, symbols):
            found += (ends[symbol * LANES] <= slot).as_number()
        return found
    count = p.variable(0)
    with p.loop(symbols, start=1) as symbol:
        count.value += (ends[symbol * LANES] <= slot).as_number()
    return count.value


def _finish(p: Program, table: Array) -> None:
    """The encoder's second half: words, of which a decoder meets the last one first.

    Leaves each block's words from `at` to `end`.
    """
    a = job.read(p, table)
    with p.loop(a["at"].length) as block:
        word, last = p.variable(a["end"][block]), a["at"][block] - 1
        with p.loop(a["at"][block] - a["begin"][block]) as index:
            symbol, lane = a["symbols"][last - index], a["lanes"][last - index]
            state, frequency = p.variable(a["state"][lane]), (symbol >> 16) + 1
            with p.when((state.value >> 16) >= frequency):
                word.value -= 1
                a["words"][word.value] = state.value & 65535
                state.value >>= 16
            quotient = state.value // frequency
            rest = state.value - quotient * frequency
            a["state"][lane] = (quotient << 16) + rest + (symbol & 65535)
        a["at"][block] = word.value
