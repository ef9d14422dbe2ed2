"""The integer network of docs/codec_format.md, for a tile of `LANES` pixels at a time.

Pixels lie side by side in vectors: activation k of pixel j is value k % group of the
32-bit group [k // group, j], logit k of pixel j the number [k, j].
"""

from emnist_jax.codec import context
from emnist_jax.codec.native.dots import OUTPUTS, Form
from emnist_jax.codec.native.language import LANES, Array, Value
from emnist_jax.codec.native.program import Function, Program

ROW = 176  # bytes of a pixel's inputs before they are put side by side
_LEAST = -(1 << 30)  # less than any logit
_FOCUS_ROWS = ((context.ROWS - 2, 9), (context.ROWS - 1, 9), (context.ROWS, 4))


def inputs(program: Program, form: Form) -> Function:
    """A function that writes the inputs of pixels side by side.

    Its parameters: padded images from the first one's window on; which of them and how
    many; bytes of an image and of its rows; room for `LANES` times `ROW` bytes; where
    to.
    """

    def body(p, pixels, images, count, size, stride, *room):
        rows, out = room
        with p.loop(count) as j:
            window, row = images[j] * size, j * ROW
            for line in range(context.ROWS + 1):
                rows.copy(row + line * context.WINDOW, pixels, window + stride * line)
            at = context.NEIGHBOURS
            for magnified in (_near_0, _near_255):
                for line, width in _FOCUS_ROWS:
                    focus = context.COLUMNS - 4 + window + stride * line
                    rows.put(row + at, magnified(pixels.vector(focus)))
                    at += width
            with p.loop(context.INPUTS // form.group) as group:
                out[group * LANES + j] = form.read(rows, row + group * form.group)

    kinds = ("u1", "i8", None, None, None, "u1", "i4")
    return program.function("inputs", kinds, body)


def _near_0(values: Value) -> Value:
    return (values << 4).at_most(255)


def _near_255(values: Value) -> Value:
    return (values - 240).at_least(0) << 4


# What a layer does with its sums.
CLIPPED, RESIDUAL, SUMS, LOGITS, BY_PLACE = range(5)
NARROW = LANES // 2  # lanes for tiles that are half empty


def dense(
    program: Program, form: Form, end: int, lanes: int = LANES, uniform: bool = False
) -> Function:
    """A function for a layer, of the first `lanes` pixels of a tile.

    Its parameters: activations, the layer's weights, biases and shifts, the number of
    groups of inputs and of outputs, where to. `BY_PLACE` makes logits too, and takes a
    table of further biases and the place in it where those of each pixel begin, or if
    uniform of all pixels.
    """

    def body(p, x, weights, biases, shifts, groups, outputs, *to):
        out, *extra = to
        with p.loop(outputs, step=OUTPUTS) as first:
            strip = weights.part(first * groups)
            at_once = form.outputs(lanes)
            for start in range(0, OUTPUTS, form.group):
                if start % at_once == 0:
                    sums = [p.variable(p.vector(0)) for _ in range(at_once)]
                    with p.loop(groups, step=2) as pair:
                        for group in (pair, pair + 1):
                            values = x.vector(group * LANES)
                            for o, total in enumerate(sums, start):
                                weight = strip.splat(group * OUTPUTS + o)
                                total.value = form.add(total.value, values, weight)
                before = first + start
                packed = p.vector(0)
                for o in range(form.group):
                    total = sums[start % at_once + o].value + biases.splat(before + o)
                    if end == SUMS:
                        out.put((before + o) * LANES, total)
                        continue
                    if end == BY_PLACE:
                        table, places = extra
                        total += _of_bin(table, places, before + o)
                    level = total >> shifts.splat(before + o)
                    if end >= LOGITS:
                        out.put((before + o) * LANES, level)
                        continue
                    if end == RESIDUAL:
                        level += form.value(x.vector(before // form.group * LANES), o)
                    packed |= form.placed(level.clipped(), o)
                if end < SUMS:
                    out.put(before // form.group * LANES, packed)

    extra = ("i4", None if uniform else "i4") if end == BY_PLACE else ()
    kinds = ("i4",) * 4 + (None, None, "i4") + extra
    with program.narrow(lanes):
        return program.function(f"dense{end}_{lanes}", kinds, body)


def detail(program: Program, form: Form, uniform: bool) -> Function:
    """A function for the end of `fine_hidden`, from its sums.

    Its parameters: the sums, the layer's shifts, their number, a table of biases, the
    place in it where those of each pixel begin, or if uniform of all pixels, where to.
    """

    def body(p, sums, shifts, outputs, table, places, out):
        with p.loop(outputs, step=form.group) as first:
            packed = p.vector(0)
            for o in range(form.group):
                extra = _of_bin(table, places, first + o)
                total = sums.vector((first + o) * LANES) + extra
                level = total >> shifts.splat(first + o)
                packed |= form.placed(level.clipped(), o)
            out.put(first // form.group * LANES, packed)

    kinds = ("i4", "i4", None, "i4", None if uniform else "i4", "i4")
    return program.function("detail", kinds, body)


def _of_bin(table: Array, places: Array | Value, output: Value) -> Value:
    """The bias of an output in the bin of each pixel, or in one that all share."""
    if isinstance(places, Array):
        return table.gather(places.vector(0) + output)
    return table.splat(places + output)


def frequencies(program: Program) -> Function:
    """A function from logits to cumulative frequencies.

    Its parameters: E; logits; the number of symbols; how many of them exist, for each
    pixel; where to: 0 first, and then the end of each symbol's interval.
    """

    def body(p, exponential, logits, symbols, existing, out):
        exist = existing.vector(0)
        top = p.variable(p.vector(_LEAST))
        with p.loop(symbols) as s:
            level = logits.vector(s * LANES).where(p.vector(s) < exist, _LEAST)
            top.value = top.value.at_least(level)
        highest, total = top.value, p.variable(p.vector(0))
        first = p.variable(p.vector(0))  # existing symbol with the highest logit
        with p.loop(symbols) as c:
            s = symbols - 1 - c
            there = p.vector(s) < exist
            level = logits.vector(s * LANES).where(there, _LEAST)
            distance = (highest - level).at_most(exponential.length - 1)
            weight = exponential.gather(distance).where(there, 0)
            first.value = p.vector(s).where(level.equals(highest), first.value)
            total.value += weight
            out.put((s + 1) * LANES, weight)
        # Exact: products stay below 2**30 and quotients below 2**16, so that doubles
        # are off by far less than what 1/2 keeps them from the next whole number.
        inverse, spread = 1.0 / total.value.as_doubles(), 65536 - exist
        end = p.variable(p.vector(0))
        with p.loop(symbols) as s:
            product = out.vector((s + 1) * LANES) * spread
            share = ((product.as_doubles() + 0.5) * inverse).as_integers()
            end.value += share + p.vector(1).where(p.vector(s) < exist, 0)
            out.put((s + 1) * LANES, end.value)
        give(p, out, symbols, first.value, 65536 - end.value)

    kinds = ("i4", "i4", None, "i4", "i4")
    return program.function("frequencies", kinds, body)


def give(p: Program, ends: Array, symbols: Value, first: Value, rest: Value) -> None:
    """Adds `rest` to symbol `first` in cumulative frequencies of `LANES` pixels."""
    ends.put(0, p.vector(0))
    with p.loop(symbols) as s:
        place = (s + 1) * LANES
        more = rest.where(first <= p.vector(s), 0)
        ends.put(place, ends.vector(place) + more)


def position_biases(program: Program) -> Function:
    """A function for the biases of a first layer at one place of the image.

    Its parameters: the layer's biases, those of the row, of the column, their number,
    where to.
    """

    def body(p, biases, row, column, outputs, out):
        with p.loop(outputs) as o:
            out[o] = biases[o] + row[o] + column[o]

    kinds = ("i4", "i4", "i4", None, "i4")
    return program.function("position_biases", kinds, body)
