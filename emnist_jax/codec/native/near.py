"""Near-lossless: the spans of docs/codec_format.md and their frequencies."""

from emnist_jax.codec.native.language import LANES, Array, Value
from emnist_jax.codec.native.network import give
from emnist_jax.codec.native.program import Function, Program


def add_bin(program: Program) -> Function:
    """A function that goes on with the running sum of p_v over one bin.

    Its parameters: cumulative frequencies of bins, the bin, those of its places, how
    many there are, the sums before each value, the bin's first value.
    """

    def body(p, ends, bin_, fine_ends, places, mass, value):
        share = (ends.vector((bin_ + 1) * LANES) - ends.vector(bin_ * LANES)) >> 1
        total = p.variable(mass.vector(value * LANES))
        with p.loop(places) as place:
            after = fine_ends.vector((place + 1) * LANES)
            inside = (after - fine_ends.vector(place * LANES)) >> 1
            total.value += (share * inside) >> 14
            mass.put((value + place + 1) * LANES, total.value)

    kinds = ("i4", None, "i4", None, "i4", None)
    return program.function("add_bin", kinds, body)


def span_end(span: Value, phase: Value, error: Value) -> Value:
    """The first value after a span; phases count from 1."""
    after = (error * 2 + 1) * (span - 1) + error + 1 + phase
    return after.at_most(256).where(span > 0, error + 1)


def spans(program: Program) -> Function:
    """A function that finds the phase of each pixel and its cumulative frequencies.

    Its parameters: G, the sums of p_v before each value, the largest error, the number
    of phases and of spans, where the frequencies and the phases go.
    """

    def body(p, order, mass, error, phases, count, *to):
        ends, phase_of = to
        best, chosen = p.variable(p.vector(-1)), p.variable(p.vector(0))
        with p.loop(phases) as index:
            before = p.variable(p.vector(0))
            bits = p.variable(p.vector(0))
            with p.loop(count) as span:
                sums = mass.vector(span_end(span, index + 1, error) * LANES)
                bits.value += order.gather((sums - before.value) >> 4)
                before.value = sums
            better = bits.value > best.value
            chosen.value = p.vector(index + 1).where(better, chosen.value)
            best.value = best.value.at_least(bits.value)
        phase = chosen.value
        phase_of.put(0, phase)
        _frequencies(p, mass, error, phase, count, ends)

    kinds = ("i4", "i4", None, None, None, "i4", "i4")
    return program.function("spans", kinds, body)


def _frequencies(p, mass, error, phase, count, ends) -> None:
    """Frequencies of the spans at each pixel's own phase."""
    existing = p.variable(p.vector(0))
    start = p.variable(p.vector(0))
    with p.loop(count) as span:
        existing.value += p.vector(1).where(start.value < 256, 0)
        start.value = span_end(span, phase, error)
    spread = 65536 - existing.value
    largest, first = p.variable(p.vector(0)), p.variable(p.vector(0))
    start.value, end = p.vector(0), p.variable(p.vector(0))
    before = p.variable(p.vector(0))
    with p.loop(count) as span:
        exists = p.vector(1).where(start.value < 256, 0)
        start.value = span_end(span, phase, error)
        sums = mass.gather(start.value * LANES + p.numbers())
        share = ((sums - before.value) * spread).shifted_right(16) + exists
        first.value = p.vector(span).where(share > largest.value, first.value)
        largest.value = largest.value.at_least(share)
        before.value = sums
        end.value += share
        ends.put((span + 1) * LANES, end.value)
    give(p, ends, count, first.value, 65536 - end.value)


def span_of(value: Value, phase: Value, error: Value) -> Value:
    """The span a value lies in."""
    width, inside = error * 2 + 1, value - error - 1
    return ((inside - phase + width) // width + 1).where(inside >= 0, 0)


def decoded(
    p: Program, mass: Array, means: Value, span: Value, phase: Value, error: Value
) -> Value:
    """What a span decodes to: its middle or, with `means`, the mean of p_v over it."""
    start, end = span_end(span - 1, phase, error), span_end(span, phase, error)
    last = mass[end * LANES]
    total = last - mass[start * LANES]
    inner = p.variable((end - start - 1) * last)  # sums of (v - start) p_v
    exact = (span > 0) & (total > 0) & (means > 0)
    with p.loop(end.where(exact, 0), start=start + 1) as value:
        inner.value -= mass[value * LANES]
    mean = start + (inner.value * 2 + total) // (total * 2).at_least(1)
    return mean.where(exact, middle(span, phase, error))


def middle(span: Value, phase: Value, error: Value) -> Value:
    """What a span decodes to."""
    start, end = span_end(span - 1, phase, error), span_end(span, phase, error)
    return ((start + end - 1) >> 1).where(span > 0, 0)
