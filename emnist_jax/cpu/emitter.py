"""Writes loops over float32 vectors and a register-blocked matrix product in LLVM IR.

Shapes are Python numbers, so that LLVM sees constants; batch sizes, image numbers
and addresses are values of the program. Offsets and strides count float32 elements.
"""

import contextlib
from collections.abc import Iterator, Sequence

from llvmlite import ir

INT8, INT32, INT64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
FLOAT, POINTER = ir.FloatType(), ir.PointerType()

Index = int | ir.Value


def int64(value: Index) -> ir.Value:
    """`value` as a 64-bit operand."""
    return ir.Constant(INT64, value) if isinstance(value, int) else value


class Emitter:
    """Appends instructions to a function.

    Attributes:
      builder: llvmlite's builder, for what has no shorter name here.
      lanes: floats in one vector register.
      registers: how many vector registers there are.
      zero: a vector of zeros.
    """

    def __init__(self, function: ir.Function, lanes: int, registers: int):
        self.function = function
        self.lanes, self.registers = lanes, registers
        self.builder = ir.IRBuilder(function.append_basic_block())
        self.vector = ir.VectorType(FLOAT, lanes)
        self.zero = ir.Constant(self.vector, [0.0] * lanes)
        name = f"llvm.fma.v{lanes}f32"
        self._fma = function.module.globals.get(name) or ir.Function(
            function.module, ir.FunctionType(self.vector, [self.vector] * 3), name
        )

    def add(self, a: Index, b: Index) -> ir.Value:
        """Integer a + b."""
        return self.builder.add(int64(a), int64(b))

    def multiply(self, a: Index, b: Index) -> ir.Value:
        """Integer a * b."""
        return self.builder.mul(int64(a), int64(b))

    def at(self, pointer: ir.Value, *offsets: Index) -> ir.Value:
        """`pointer` moved on by the sum of `offsets`, in floats."""
        for offset in offsets:
            if offset != 0:
                pointer = self.builder.gep(
                    pointer, [int64(offset)], inbounds=True, source_etype=FLOAT
                )
        return pointer

    def load(self, pointer: ir.Value, offset: Index = 0) -> ir.Value:
        """The vector at `pointer`."""
        return self.builder.load(self.at(pointer, offset), typ=self.vector, align=4)

    def store(self, vector: ir.Value, pointer: ir.Value, offset: Index = 0) -> None:
        """Writes a vector."""
        self.builder.store(vector, self.at(pointer, offset), align=4)

    def splat(self, pointer: ir.Value, offset: Index = 0) -> ir.Value:
        """A vector of copies of the float at `pointer`."""
        value = self.builder.load(self.at(pointer, offset), typ=FLOAT, align=4)
        undefined = ir.Constant(self.vector, ir.Undefined)
        first = self.builder.insert_element(undefined, value, ir.Constant(INT32, 0))
        order = ir.Constant(ir.VectorType(INT32, self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(first, undefined, order)

    def fma(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        """a * b + c."""
        return self.builder.call(self._fma, [a, b, c])

    def relu(self, value: ir.Value) -> ir.Value:
        """`value` where it is not below 0, else 0; NaN stays NaN."""
        negative = self.builder.fcmp_ordered("<", value, self.zero)
        return self.builder.select(negative, self.zero, value)

    def where_positive(self, condition: ir.Value, value: ir.Value) -> ir.Value:
        """`value` where `condition` is above 0, else 0."""
        positive = self.builder.fcmp_ordered(">", condition, self.zero)
        return self.builder.select(positive, value, self.zero)

    def variable(self) -> ir.Value:
        """A vector that can be assigned to; LLVM keeps it in a register."""
        with self.builder.goto_entry_block():
            return self.builder.alloca(self.vector)

    def get(self, variable: ir.Value) -> ir.Value:
        """The value of a variable."""
        return self.builder.load(variable, typ=self.vector)

    def set(self, variable: ir.Value, value: ir.Value) -> None:
        """Assigns to a variable."""
        self.builder.store(value, variable)

    @contextlib.contextmanager
    def loop(self, stop: Index, step: int = 1, start: Index = 0) -> Iterator[ir.Value]:
        """`for index in range(start, stop, step)`, which must not be empty."""
        if isinstance(start, int) and isinstance(stop, int) and start + step >= stop:
            yield int64(start)
            return
        before = self.builder.block
        body = self.function.append_basic_block()
        self.builder.branch(body)
        self.builder.position_at_end(body)
        index = self.builder.phi(INT64)
        index.add_incoming(int64(start), before)
        yield index
        following = self.add(index, step)
        after = self.function.append_basic_block()
        more = self.builder.icmp_signed("<", following, int64(stop))
        index.add_incoming(following, self.builder.block)
        self.builder.cbranch(more, body, after)
        self.builder.position_at_end(after)

    def fill_zero(self, pointer: ir.Value, count: int) -> None:
        """Writes `count` zeros; a multiple of the lanes."""
        with self.loop(count, self.lanes) as i:
            self.store(self.zero, pointer, i)


def matrix_product(
    e: Emitter,
    a: ir.Value,
    b: ir.Value,
    c: ir.Value,
    *,
    rows: int,
    columns: int,
    depth: int,
    a_row: int,
    a_depth: int,
    b_depth: int,
    c_row: int,
    taps: Sequence[tuple[int, int]] = ((0, 0),),
    bias: ir.Value | None = None,
    accumulate: bool = False,
    relu: bool = False,
) -> None:
    """Emits c[r, n] = sum over taps (i, j) and k of a[i][r, k] * b[j][k, n].

    A block of c that fills the registers is summed up at a time: every vector of b
    that is loaded serves all its rows, every float of a all its columns.

    Args:
      e: where to.
      a: address; element [r, k] of tap (i, j) is at `i + r * a_row + k * a_depth`.
      b: address; row k of tap (i, j) is at `j + k * b_depth`, contiguous.
      c: address; row r is at `r * c_row`, contiguous.
      rows: of c.
      columns: of c, a multiple of the lanes.
      depth: length of the sum over k.
      a_row: distance of rows in a.
      a_depth: distance of summands in a.
      b_depth: distance of summands in b.
      c_row: distance of rows in c.
      taps: offsets into a and b whose products are added up.
      bias: address of `columns` floats to start from; zeros if None.
      accumulate: whether to start from what c holds.
      relu: whether negative results become 0.
    """
    vectors = columns // e.lanes
    # 16 registers hold 6 x 2 sums, 32 hold 14 x 2, or 6 x 4 where vectors are short.
    width = next(w for w in ((4, 2, 1) if e.lanes == 4 else (2, 1)) if not vectors % w)
    height = (e.registers - width - 1) // width
    blocks = -(-rows // height)
    low, higher = divmod(rows, blocks)  # `higher` blocks of low + 1 rows come first

    def block(first: ir.Value, count: int, column: ir.Value) -> None:
        a_block, b_block = e.at(a, e.multiply(first, a_row)), e.at(b, column)
        c_block = e.at(c, e.multiply(first, c_row), column)
        cells = [(r, v) for r in range(count) for v in range(width)]
        sums = {cell: e.variable() for cell in cells}
        for r, v in cells:
            start = e.zero
            if accumulate:
                start = e.load(c_block, r * c_row + v * e.lanes)
            elif bias is not None:
                start = e.load(e.at(bias, column), v * e.lanes)
            e.set(sums[r, v], start)
        for a_tap, b_tap in taps:
            with e.loop(depth) as k:
                a_k = e.at(a_block, e.multiply(k, a_depth), a_tap)
                b_k = e.at(b_block, e.multiply(k, b_depth), b_tap)
                b_vectors = [e.load(b_k, v * e.lanes) for v in range(width)]
                for r in range(count):
                    value = e.splat(a_k, r * a_row)
                    for v in range(width):
                        e.set(sums[r, v], e.fma(value, b_vectors[v], e.get(sums[r, v])))
        for r, v in cells:
            total = e.get(sums[r, v])
            total = e.relu(total) if relu else total
            e.store(total, c_block, r * c_row + v * e.lanes)

    with e.loop(columns, width * e.lanes) as column:
        if higher:
            with e.loop(higher * (low + 1), low + 1) as first:
                block(first, low + 1, column)
        with e.loop(rows, low, higher * (low + 1)) as first:
            block(first, low, column)
