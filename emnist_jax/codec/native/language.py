"""Writes loops over integers in LLVM's language so that they read like Python.

A scalar is a 64-bit integer. A *vector* holds one 32-bit integer for each of `LANES`
pixels, or fewer where a program says so. Indices are compared with the length of their
array in a checked program, which tests run.
"""

from typing import TYPE_CHECKING

from llvmlite import ir

if TYPE_CHECKING:
    from emnist_jax.codec.native.program import Program

LANES = 16
BIT, INT32, INT64 = ir.IntType(1), ir.IntType(32), ir.IntType(64)
DOUBLE, POINTER = ir.DoubleType(), ir.PointerType()
DONE = 0  # what a function returns; more than 1 says which bound did not hold
DAMAGE = 1


class Value:
    """A number, or a vector of them; arithmetic on it appends instructions."""

    def __init__(self, program: "Program", value: ir.Value):
        self.program, self.ir = program, value

    def _binary(self, operation: str, other, *, swapped: bool = False) -> "Value":
        left, right = self.program.alike(self, other)
        left, right = (right, left) if swapped else (left, right)
        if _element(left.type) is DOUBLE:
            operation = "f" + operation
        return Value(
            self.program, getattr(self.program.builder, operation)(left, right)
        )

    def _compare(self, operation: str, other) -> "Value":
        left, right = self.program.alike(self, other)
        return Value(
            self.program, self.program.builder.icmp_signed(operation, left, right)
        )

    def __add__(self, other):
        return self._binary("add", other)

    def __sub__(self, other):
        return self._binary("sub", other)

    def __rsub__(self, other):
        return self._binary("sub", other, swapped=True)

    def __mul__(self, other):
        return self._binary("mul", other)

    def __floordiv__(self, other):  # of what is not negative
        return self._binary("udiv", other)

    def __rtruediv__(self, other):
        return self._binary("div", other, swapped=True)

    def __lshift__(self, other):
        return self._binary("shl", other)

    def __rshift__(self, other):  # rounds down
        return self._binary("ashr", other)

    def shifted_right(self, count: int) -> "Value":
        """The bits, taken as a number without sign, shifted to the right."""
        return self._binary("lshr", count)

    def __and__(self, other):
        return self._binary("and_", other)

    def __or__(self, other):
        return self._binary("or_", other)

    __radd__, __rmul__ = __add__, __mul__

    def __lt__(self, other):
        return self._compare("<", other)

    def __le__(self, other):
        return self._compare("<=", other)

    def __gt__(self, other):
        return self._compare(">", other)

    def __ge__(self, other):
        return self._compare(">=", other)

    def equals(self, other) -> "Value":
        """Whether both are the same."""
        return self._compare("==", other)

    def where(self, condition: "Value", other) -> "Value":
        """This where `condition` holds, else `other`."""
        left, right = self.program.alike(self, other)
        chosen = self.program.builder.select(condition.ir, left, right)
        return Value(self.program, chosen)

    def at_least(self, other) -> "Value":
        """The greater of the two."""
        return self.where(self > other, other)

    def at_most(self, other) -> "Value":
        """The smaller of the two."""
        return self.where(self < other, other)

    def clipped(self) -> "Value":
        """Limited to 0..255."""
        return self.at_least(0).at_most(255)

    def as_doubles(self) -> "Value":
        """The same numbers in floating point."""
        kind = ir.VectorType(DOUBLE, self.ir.type.count)
        return Value(self.program, self.program.builder.sitofp(self.ir, kind))

    def as_integers(self) -> "Value":
        """Numbers in floating point, not negative, rounded down."""
        return Value(
            self.program, self.program.builder.fptosi(self.ir, self.program.kind)
        )

    def as_number(self) -> "Value":
        """A truth value as 0 or 1."""
        return Value(self.program, self.program.builder.zext(self.ir, INT64))


class Variable:
    """What can be assigned to; LLVM keeps it in a register."""

    def __init__(self, program: "Program", start: Value):
        self.program = program
        with program.builder.goto_entry_block():
            self._place = program.builder.alloca(start.ir.type)
        self._kind = start.ir.type
        self.value = start

    @property
    def value(self) -> Value:
        """What was assigned last."""
        loaded = self.program.builder.load(self._place, typ=self._kind)
        return Value(self.program, loaded)

    @value.setter
    def value(self, value: Value) -> None:
        self.program.builder.store(value.ir, self._place)


class Array:
    """Integers in memory.

    Attributes:
      kind: NumPy's name of their type: u1, u2, i4, u4 or i8.
      pointer: where they begin.
      length: how many there are.
    """

    def __init__(self, program: "Program", kind: str, pointer, length: Value):
        self.program, self.kind = program, kind
        self.pointer, self.length = pointer, length
        self._element = ir.IntType(8 * int(kind[1]))

    def address(self, index, count: int = 1) -> ir.Value:
        """Where element `index` is, the first of `count` that are touched."""
        program, index = self.program, self.program.number(index)
        if program.checked:
            program.sites += 1
            outside = (index < 0) | (index + count > self.length)
            with program.when(outside):
                program.result(DAMAGE + program.sites)
        return program.builder.gep(
            self.pointer, [index.ir], inbounds=True, source_etype=self._element
        )

    def part(self, start) -> "Array":
        """What follows element `start`."""
        start = self.program.number(start)
        pointer = self.program.builder.gep(
            self.pointer, [start.ir], source_etype=self._element
        )
        return Array(self.program, self.kind, pointer, self.length - start)

    def _widened(self, value: ir.Value, kind: ir.Type) -> Value:
        builder = self.program.builder
        if value.type != kind:
            extend = builder.sext if self.kind[0] == "i" else builder.zext
            value = extend(value, kind)
        return Value(self.program, value)

    def __getitem__(self, index) -> Value:
        address = self.address(index)
        loaded = self.program.builder.load(address, typ=self._element)
        return self._widened(loaded, INT64)

    item = __getitem__

    def __setitem__(self, index, value) -> None:
        value = self.program.number(value).ir
        if value.type != self._element:
            value = self.program.builder.trunc(value, self._element)
        self.program.builder.store(value, self.address(index))

    def word(self, index, size: int) -> Value:
        """The `size` elements of one byte from `index` on as one scalar."""
        address = self.address(index, size)
        kind = ir.IntType(8 * size)
        loaded = self.program.builder.load(address, typ=kind, align=1)
        return self._widened(loaded, INT64)

    def vector(self, index) -> Value:
        """The elements from `index` on, as many as a vector has."""
        kind = ir.VectorType(self._element, self.program.lanes)
        align = int(self.kind[1])
        address = self.address(index, self.program.lanes)
        loaded = self.program.builder.load(address, typ=kind, align=align)
        return self._widened(loaded, self.program.kind)

    def put(self, index, value: Value) -> None:
        """Writes a vector."""
        value, kind = value.ir, ir.VectorType(self._element, self.program.lanes)
        if value.type != kind:
            value = self.program.builder.trunc(value, kind)
        address = self.address(index, self.program.lanes)
        self.program.builder.store(value, address, align=int(self.kind[1]))

    def copy(self, index, other: "Array", start) -> None:
        """Writes `LANES` elements of another array, from `start` on."""
        kind, align = ir.VectorType(self._element, LANES), int(self.kind[1])
        builder, address = self.program.builder, other.address(start, LANES)
        loaded = builder.load(address, typ=kind, align=align)
        builder.store(loaded, self.address(index, LANES), align=align)

    def splat(self, index) -> Value:
        """A vector of copies of element `index`."""
        address = self.address(index)
        loaded = self.program.builder.load(address, typ=self._element)
        return self.program.splat(self._widened(loaded, INT32).ir)

    def gather(self, indices: Value) -> Value:
        """A vector of the elements at `indices`, 32 bits each."""
        assert self.kind == "i4"
        program, builder = self.program, self.program.builder
        if program.checked:
            for lane in range(program.lanes):
                at = builder.extract_element(indices.ir, ir.Constant(INT32, lane))
                self.address(Value(program, builder.sext(at, INT64)))
        pointers = builder.gep(self.pointer, [indices.ir], source_etype=INT32)
        pointers.type = ir.VectorType(POINTER, program.lanes)
        mask = ir.VectorType(BIT, program.lanes)
        arguments = [
            pointers,
            ir.Constant(INT32, 4),
            ir.Constant(mask, [1] * program.lanes),
            ir.Constant(program.kind, [0] * program.lanes),
        ]
        lanes = program.lanes
        name = f"llvm.masked.gather.v{lanes}i32.v{lanes}p0"
        return Value(program, program.intrinsic(name, program.kind, arguments))


def _element(kind: ir.Type) -> ir.Type:
    return kind.element if isinstance(kind, ir.VectorType) else kind
