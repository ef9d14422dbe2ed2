"""A program of functions over arrays of integers, written with `language`."""

import contextlib
from collections.abc import Callable, Iterator

from llvmlite import ir

from emnist_jax.codec.native.language import (
    DONE,
    INT32,
    INT64,
    LANES,
    POINTER,
    Array,
    Value,
    Variable,
)


class Function:
    """A function of a program: what to call, and the kinds of its arrays."""

    def __init__(self, function: ir.Function, kinds: tuple[str | None, ...]):
        self.ir, self.kinds = function, kinds


class Program:
    """A module that grows.

    Attributes:
      checked: whether every index is compared with the length of its array.
      builder: llvmlite's, at the place where the next instruction goes.
      sites: how many checks there are.
      lanes: of the vectors that are made; `LANES`, but for `narrow`.
    """

    def __init__(self, checked: bool = False):
        self.module = ir.Module("codec")
        self.checked, self.sites, self.lanes = checked, 0, LANES
        self.builder: ir.IRBuilder | None = None

    @property
    def kind(self) -> ir.VectorType:
        """The type of vectors."""
        return ir.VectorType(INT32, self.lanes)

    @contextlib.contextmanager
    def narrow(self, lanes: int) -> Iterator[None]:
        """In a `with` block: vectors of fewer lanes."""
        before, self.lanes = self.lanes, lanes
        yield
        self.lanes = before

    def number(self, value) -> Value:
        """A Python integer as a scalar; others as they are."""
        if isinstance(value, Value):
            return value
        return Value(self, ir.Constant(INT64, value))

    def splat(self, value: ir.Value) -> Value:
        """A vector of copies of a 32-bit integer."""
        undefined = ir.Constant(self.kind, ir.Undefined)
        first = self.builder.insert_element(undefined, value, ir.Constant(INT32, 0))
        order = ir.Constant(self.kind, [0] * self.lanes)
        return Value(self, self.builder.shuffle_vector(first, undefined, order))

    def vector(self, value) -> Value:
        """A vector of copies of a scalar or a Python integer."""
        if isinstance(value, int):
            return Value(self, ir.Constant(self.kind, [value] * self.lanes))
        return self.splat(self.builder.trunc(value.ir, INT32))

    def numbers(self) -> Value:
        """The number of each pixel in a vector: 0, 1, 2, ..."""
        return Value(self, ir.Constant(self.kind, list(range(self.lanes))))

    def alike(self, left: Value, right) -> tuple[ir.Value, ir.Value]:
        """Both operands in the same type: scalars go along with vectors."""
        if isinstance(right, int | float):
            kind = left.ir.type
            if isinstance(kind, ir.VectorType):
                return left.ir, ir.Constant(kind, [right] * kind.count)
            return left.ir, ir.Constant(kind, right)
        if left.ir.type == right.ir.type:
            return left.ir, right.ir
        if right.ir.type == INT64:
            return left.ir, self.vector(right).ir
        return self.vector(left).ir, right.ir

    def variable(self, start) -> Variable:
        """A new variable."""
        return Variable(self, self.number(start))

    def intrinsic(self, name: str, result: ir.Type, arguments: list) -> ir.Value:
        """Calls what LLVM knows by `name`."""
        kinds = [argument.type for argument in arguments]
        function = self.module.globals.get(name) or ir.Function(
            self.module, ir.FunctionType(result, kinds), name
        )
        return self.builder.call(function, arguments)

    @contextlib.contextmanager
    def loop(self, stop, start=0, step: int = 1) -> Iterator[Value]:
        """`for index in range(start, stop, step)`."""
        builder, stop = self.builder, self.number(stop)
        head = builder.append_basic_block()
        body, after = builder.append_basic_block(), builder.append_basic_block()
        index = self.variable(start)
        builder.branch(head)
        builder.position_at_end(head)
        now = index.value
        builder.cbranch((now < stop).ir, body, after)
        builder.position_at_end(body)
        yield now
        index.value = now + step
        builder.branch(head)
        builder.position_at_end(after)

    @contextlib.contextmanager
    def when(self, condition: Value) -> Iterator[None]:
        """`if condition`."""
        with self.builder.if_then(condition.ir):
            yield

    def choose(self, condition: Value, then: Callable, otherwise: Callable) -> None:
        """`if condition: then() else: otherwise()`."""
        with self.builder.if_else(condition.ir) as (first, second):
            with first:
                then()
            with second:
                otherwise()

    def result(self, status: int) -> None:
        """`return status`."""
        self.builder.ret(ir.Constant(INT64, status))

    def function(self, name: str, kinds: tuple, body: Callable) -> Function:
        """Adds a function.

        Args:
          name: of the function.
          kinds: of its parameters: None for a scalar, else of an array's elements.
          body: gets the program and the parameters.
        """
        types = [
            part
            for kind in kinds
            for part in ((INT64,) if kind is None else (POINTER, INT64))
        ]
        function = ir.Function(self.module, ir.FunctionType(INT64, types), name)
        outer, self.builder = self.builder, ir.IRBuilder(function.append_basic_block())
        given = iter(function.args)
        parameters = [
            Value(self, next(given))
            if kind is None
            else Array(self, kind, next(given), Value(self, next(given)))
            for kind in kinds
        ]
        body(self, *parameters)
        self.result(DONE)
        self.builder = outer
        return Function(function, kinds)

    def call(self, function: Function, *arguments) -> None:
        """Calls a function of this program; a status other than done is passed on."""
        parts = []
        for argument, kind in zip(arguments, function.kinds, strict=True):
            if kind is None:
                parts.append(self.number(argument).ir)
            else:
                assert argument.kind == kind, (function.ir.name, argument.kind, kind)
                parts += [argument.pointer, argument.length.ir]
        status = Value(self, self.builder.call(function.ir, parts))
        if self.checked:
            with self.when(status > DONE):
                self.builder.ret(status.ir)
