"""The inner step of integer matrix products, for what processors offer.

A 32-bit *group* holds 4 activations of 8 bits, where a processor multiplies such
groups by as many 8-bit weights and adds up in 32 bits, else 2 of 16 bits. All sums are
exact.
"""

import dataclasses

from llvmlite import ir

from emnist_jax.codec.native.language import INT32, Array, Value

# Features a processor must have, lanes of the instruction, LLVM's name for it.
_BYTES = (
    ({"avx512vnni", "avx512vl"}, 16, "llvm.x86.avx512.vpdpbusd.512"),
    ({"avx512vnni", "avx512vl"}, 8, "llvm.x86.avx512.vpdpbusd.256"),
    ({"avxvnni", "avx2"}, 8, "llvm.x86.avx512.vpdpbusd.256"),
)
_PAIRS = (
    ({"avx512bw"}, 16, "llvm.x86.avx512.pmaddw.d.512"),
    ({"avx2"}, 8, "llvm.x86.avx2.pmadd.wd"),
    ({"sse2"}, 4, "llvm.x86.sse2.pmadd.wd"),
)
OUTPUTS = 8  # of a layer whose weights lie together, in a strip


@dataclasses.dataclass(frozen=True)
class Form:
    """How activations and weights lie in groups, and are multiplied.

    Attributes:
      group: values in a group, 4 or 2.
      names: LLVM's of the instructions, by their lanes, most first; may be empty.
    """

    group: int = 2
    names: tuple[tuple[int, str], ...] = ()

    @property
    def bits(self) -> int:
        """Of one value."""
        return 32 // self.group

    def outputs(self, lanes: int) -> int:
        """Outputs of a strip that are summed up at a time: what registers hold.

        Args:
          lanes: of the vectors, which may take several registers each.
        """
        widest = max((n for n, _ in self.names if n <= lanes), default=lanes)
        return OUTPUTS * widest // lanes

    def placed(self, value: Value, index: int) -> Value:
        """A value, 0..255, as value `index` of groups that hold no others."""
        return value << (self.bits * index)

    def value(self, groups: Value, index: int) -> Value:
        """Value `index` of each group."""
        return (groups >> (self.bits * index)) & 255

    def read(self, values: Array, start: Value) -> Value:
        """The group of the 8-bit values from `start` on, a scalar."""
        packed = values.word(start, self.group)
        return packed if self.group == 4 else packed >> 8 << 16 | packed & 255

    def add(self, total: Value, values: Value, weights: Value) -> Value:
        """total + the products of groups, in each lane."""
        program = total.program
        fitting = ((n, name) for n, name in self.names if n <= program.lanes)
        lanes, name = next(fitting, (0, ""))
        if not lanes:
            high = (values >> 16) * (weights >> 16)
            return total + ((values << 16) >> 16) * ((weights << 16) >> 16) + high
        builder, wide = program.builder, ir.VectorType(INT32, lanes)
        short = ir.VectorType(ir.IntType(16), 2 * lanes)
        found = []
        parts = [_cut(value, wide) for value in (total, values, weights)]
        for total_part, *factors in zip(*parts, strict=True):
            if self.group == 4:
                arguments = [total_part, *factors]
                found.append(program.intrinsic(name, wide, arguments))
            else:
                factors = [builder.bitcast(part, short) for part in factors]
                product = program.intrinsic(name, wide, factors)
                found.append(builder.add(total_part, product))
        return Value(program, _joined(builder, found))


def _cut(value: Value, kind: ir.VectorType) -> list[ir.Value]:
    """The pieces of a vector that an instruction takes."""
    if value.ir.type == kind:
        return [value.ir]
    undefined = ir.Constant(value.ir.type, ir.Undefined)
    orders = [
        ir.Constant(kind, list(range(start, start + kind.count)))
        for start in range(0, value.ir.type.count, kind.count)
    ]
    shuffle = value.program.builder.shuffle_vector
    return [shuffle(value.ir, undefined, order) for order in orders]


def _joined(builder: ir.IRBuilder, parts: list[ir.Value]) -> ir.Value:
    while len(parts) > 1:
        count = 2 * parts[0].type.count
        order = ir.Constant(ir.VectorType(INT32, count), list(range(count)))
        parts = [
            builder.shuffle_vector(low, high, order)
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
        names = tuple((lanes, name) for needed, lanes, name in table if needed <= has)
        found += [Form(group, names)] * bool(names)
    return [*found, Form()]
