"""The layers of a pixel model, called for a tile of the images of a job."""

from emnist_jax.codec.native import network
from emnist_jax.codec.native.dots import Form
from emnist_jax.codec.native.language import LANES, Array, Value
from emnist_jax.codec.native.network import (
    BY_PLACE,
    CLIPPED,
    LOGITS,
    NARROW,
    RESIDUAL,
    SUMS,
)
from emnist_jax.codec.native.program import Program
from emnist_jax.codec.values import BINS, WIDEST

_NAMES = ("gate_first", "gate_block0", "gate_head", "coarse", "fine_hidden", "fine")
LAYERS = {name: index for index, name in enumerate((*_NAMES, "first"))}  # then blocks
_NAMES = ("gate_row", "gate_column", "row", "column", "fine_bin", "fine_place")
TABLES = {name: index for index, name in enumerate(_NAMES)}


class Layers:
    """Writes calls of `network` for the model of a job.

    Attributes:
      arrays: the job's; to be set where a function begins.
    """

    def __init__(self, program: Program, form: Form, uniform: bool):
        """Takes whether `fine` is called with the same bin for all pixels."""
        self.program, self.form, self._uniform = program, form, uniform
        self.arrays: dict[str, Array] = {}
        self._inputs = network.inputs(program, form)
        self._dense_of = {
            (end, lanes): network.dense(program, form, end, lanes, uniform)
            for end in range(BY_PLACE + 1)
            for lanes in ((LANES, NARROW) if end in (CLIPPED, RESIDUAL) else (LANES,))
        }
        self._detail = network.detail(program, form, uniform)
        self._frequencies_of = network.frequencies(program)
        self._position_biases = network.position_biases(program)

    def gate(self, images: tuple) -> None:
        """Frequencies of the gate go to `ends`; `images` as for `_first`."""
        a = self.arrays
        self._first("gate_first", images)
        after = a["trunk"].part(self.length("gate_first"))
        self._dense("gate_block0", RESIDUAL, a["trunk"], after)
        self._dense("gate_head", LOGITS, after, a["logits"])
        self._frequencies("ends", 2, self.program.vector(2))

    def coarse(self, images: tuple, blocks: Value) -> Array:
        """Frequencies of bins go to `ends`; returns the trunk's activations."""
        a, length = self.arrays, self.length("first")
        self._first("first", images)
        with self.program.loop(blocks) as block:
            x = a["trunk"].part(block * length)
            self._dense(block + LAYERS["first"] + 1, RESIDUAL, x, x.part(length))
        last = a["trunk"].part(blocks * length)
        self._dense("coarse", LOGITS, last, a["logits"])
        self._frequencies("ends", BINS, self.program.vector(BINS))
        return last

    def fine_sums(self, hidden: Array) -> None:
        """What all bins share of `fine_hidden`, for `fine`."""
        self._dense("fine_hidden", SUMS, hidden, self.arrays["sums"])

    def fine(self, bins: Value, widths: Value) -> None:
        """Frequencies of the places in a bin of each pixel go to `fine_ends`."""
        a = self.arrays
        _, outputs, _, bias = self._about("fine_hidden")
        first, row, _ = self._table("fine_bin")
        self.program.call(
            self._detail,
            *(a["sums"], a["shifts"].part(bias), outputs),
            *(a["biases"].part(first), self._places(bins * row), a["detail"]),
        )
        first, row, _ = self._table("fine_place")
        extra = a["biases"].part(first), self._places(bins * row)
        self._dense("fine", BY_PLACE, a["detail"], a["logits"], *extra)
        self._frequencies("fine_ends", WIDEST, widths)

    def _places(self, places: Value) -> Value | Array:
        """Where the biases of a bin begin, as `network` takes it."""
        if self._uniform:
            return places
        self.arrays["places"].put(0, places)
        return self.arrays["places"]

    def _first(self, layer: str, images: tuple) -> None:
        """A first layer, into `trunk`; `images` as for `network.inputs`."""
        a, self.size = self.arrays, images[2]
        self.program.call(self._inputs, *images, a["rows"], a["inputs"])
        self._dense(layer, CLIPPED, a["inputs"], a["trunk"], biases=a["bias"])

    def _dense(
        self, layer: str | Value, end: int, x: Array, out: Array, *extra, biases=None
    ) -> None:
        """Calls `network.dense` for a layer."""
        a = self.arrays
        groups, outputs, weight, bias = self._about(layer)
        arguments = (
            *(x, a["weights"].part(weight), biases or a["biases"].part(bias)),
            *(a["shifts"].part(bias), groups, outputs, out, *extra),
        )

        def call(lanes: int) -> None:
            self.program.call(self._dense_of[end, lanes], *arguments)

        if (end, NARROW) in self._dense_of:
            few = self.size <= NARROW
            self.program.choose(few, lambda: call(NARROW), lambda: call(LANES))
        else:
            call(LANES)

    def _about(self, layer: str | Value) -> list[Value]:
        """Groups, outputs, first weight and first bias of a layer."""
        index = LAYERS[layer] if isinstance(layer, str) else layer
        return [self.arrays["layers"][index * 4 + part] for part in range(4)]

    def _table(self, name: str) -> list[Value]:
        """First bias, distance of rows, and rows of a table of biases."""
        return [self.arrays["tables"][TABLES[name] * 3 + part] for part in range(3)]

    def length(self, layer: str) -> Value:
        """How many 32-bit groups the activations of a tile take."""
        return self._about(layer)[1] // self.form.group * LANES

    def place(self, layer: str, tables: tuple, row: Value, column: Value) -> None:
        """Puts the biases of a first layer at this pixel into `bias`."""
        a, lines = self.arrays, []
        for name, at in zip(tables, (row, column), strict=True):
            first, length, rows = self._table(name)
            lines.append(a["biases"].part(first + at.at_most(rows - 1) * length))
        _, outputs, _, bias = self._about(layer)
        bias = a["biases"].part(bias)
        self.program.call(self._position_biases, bias, *lines, outputs, a["bias"])

    def _frequencies(self, ends: str, symbols: int, existing: Value) -> None:
        a = self.arrays
        a["exist"].put(0, existing)
        arrays = a["exponential"], a["logits"], symbols, a["exist"], a[ends]
        self.program.call(self._frequencies_of, *arrays)
