"""The inner step of integer matrix products, for what processors offer.

A 32-bit *group* holds 4 activations of 8 bits, where a processor multiplies such
groups by as many 8-bit weights and adds up in 32 bits, else 2 of 16 bits. All sums are
exact.
"""

import dataclasses

from llvmlite import ir

from emnist_jax.codec.native.language import INT32, LANES, VECTOR, Array, Value

# Features a processor must have, lanes of the instruction, LLVM's name for it.
_BYTES = (
    ({"avx512vnni", "avx512vl"}, 16, "llvm.x86.avx512.vpdpbusd.512"),
    ({"avxvnni", "avx2"}, 8, "llvm.x86.avx512.vpdpbusd.256"),
)
_PAIRS = (
    ({"avx512bw"}, 16, "llvm.x86.avx512.pmaddw.d.512"),
    ({"avx2"}, 8, "llvm.x86.avx2.pmadd.wd"),
    ({"sse2"}, 4, "llvm.x86.sse2.pmadd.wd"),
)


OUTPUTS = 4  # of a layer that are summed up at a time: few registers hold them


@dataclasses.dataclass(frozen=True)
class Form:
    """How activations and weights lie in groups, and are multiplied.

    Attributes:
      group: values in a group, 4 or 2.
      lanes: of the instruction; 0 without one.
      name: LLVM's of the instruction.
    """

    group: int = 2
    lanes: int = 0
    name: str = ""

    @property
    def bits(self) -> int:
        """Of one value."""
        return 32 // self.group

    def placed(self, value: Value, index: int) -> Value:
        """A value, 0..255, as value `index` of groups that hold no others."""
        return value << (self.bits * index)

    def value(self, groups: Value, index: int) -> Value:
        """Value `index` of each group."""
        return (groups >> (self.bits * index)) & 255

    def read(self, values: Array, start: Value) -> Value:
        """The group of the 8-bit values from `start` on, a scalar."""
        found = values[start]
        for index in range(1, self.group):
            found |= values[start + index] << (self.bits * index)
        return found

    def add(self, total: Value, values: Value, weights: Value) -> Value:
        """total + the products of groups, in each lane."""
        if not self.lanes:
            high = (values >> 16) * (weights >> 16)
            return total + ((values << 16) >> 16) * ((weights << 16) >> 16) + high
        program = total.program
        parts = [self._cut(value) for value in (total, values, weights)]
        wide = ir.VectorType(INT32, self.lanes)
        found = []
        for total_part, *factors in zip(*parts, strict=True):
            if self.group == 4:
                arguments = [total_part, *factors]
                found.append(program.intrinsic(self.name, wide, arguments))
            else:
                short = ir.VectorType(ir.IntType(16), 2 * self.lanes)
                factors = [program.builder.bitcast(part, short) for part in factors]
                product = program.intrinsic(self.name, wide, factors)
                found.append(program.builder.add(total_part, product))
        return Value(program, self._joined(program, found))

    def _cut(self, value: Value) -> list[ir.Value]:
        """The pieces of a vector that an instruction takes."""
        if self.lanes == LANES:
            return [value.ir]
        builder, undefined = value.program.builder, ir.Constant(VECTOR, ir.Undefined)
        kind = ir.VectorType(INT32, self.lanes)
        return [
            builder.shuffle_vector(
                value.ir,
                undefined,
                ir.Constant(kind, list(range(start, start + self.lanes))),
            )
            for start in range(0, LANES, self.lanes)
        ]

    def _joined(self, program, parts: list[ir.Value]) -> ir.Value:
        while len(parts) > 1:
            count = 2 * parts[0].type.count
            order = ir.Constant(ir.VectorType(INT32, count), list(range(count)))
            parts = [
                program.builder.shuffle_vector(low, high, order)
                for low, high in zip(parts[::2], parts[1::2], strict=True)
            ]
        return parts[0]


def forms(features: str) -> list[Form]:
    """The forms that a processor of these features can use, best first.

    Args:
      features: in LLVM's words, `+avx2,-avx512f,...`.
    """
    has = {name[1:] for name in features.split(",") if name.startswith("+")}
    found = []
    for group, table in ((4, _BYTES), (2, _PAIRS)):
        for needed, lanes, name in table:
            if needed <= has:
                found.append(Form(group, lanes, name))
    return [*found, Form()]
