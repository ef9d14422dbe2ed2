"""Compiles kernels and runs them as XLA custom calls on XLA's own threads.

A kernel is a body that computes one unit of work (an image, or one worker's share
of a batch); `handler` is what joins it to XLA.
"""

import ctypes
import functools
import threading
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import llvmlite.binding as llvm
from llvmlite import ir

from emnist_jax import cpu
from emnist_jax.cpu import handler, machine_code
from emnist_jax.cpu.emitter import FLOAT, Emitter, int64

_lock = threading.Lock()
_engines = {}  # by name of the call target; they own the machine code


def workers() -> int:
    """How many threads share a call."""
    return cpu.threads()


@functools.cache
def vector_registers() -> tuple[int, int] | None:
    """Floats in a vector register and number of registers; None if unknown."""
    features = llvm.get_host_cpu_features()
    if features.get("avx512f"):
        return 16, 32
    if features.get("avx2") and features.get("fma"):
        return 8, 16
    if features.get("neon"):
        return 4, 32
    return None


def compile_kernel(emit: Callable, *shape: int) -> str:
    """Compiles a kernel and registers it with XLA.

    Args:
      emit: takes `shape`, gives the body, the number of buffers that are arguments,
        of those that are results, and the units of work (None: one per image, the
        leading axis of the first argument).
      *shape: what the kernel is specialised for.

    Returns:
      The name of the call target.
    """
    with _lock:
        return _register(emit, shape, vector_registers(), workers())


@functools.cache
def _register(emit: Callable, shape: tuple, vectors: tuple, threads: int) -> str:
    numbers = (*shape, *vectors, threads)
    name = "_".join(["emnist_jax", emit.__name__, *map(str, map(int, numbers))])
    module = ir.Module(name)
    module.triple = llvm.get_default_triple()
    handler.emit(module, *emit(*shape), threads, vectors)
    engine = machine_code.compile_module(str(module))
    _engines[name] = engine
    jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(handler_of(name)), "cpu")
    return name


def handler_of(target: str) -> Callable[[int], int | None]:
    """The code of a compiled kernel, as XLA calls it: `interface.CallFrame` in."""
    address = _engines[target].get_function_address("handler")
    return ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)(address)


def call(
    target: str, results: Sequence[tuple[int, ...]], *arguments: jax.Array
) -> list[jax.Array]:
    """Runs a compiled kernel.

    Args:
      target: from `compile_kernel`.
      results: their shapes.
      *arguments: float32 arrays.

    Returns:
      The results, float32.
    """
    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in results]
    return jax.ffi.ffi_call(target, shapes, vmap_method="sequential")(*arguments)


def zeros(e: Emitter, count: int) -> ir.Value:
    """Address of `count` constant zeros; once a kernel."""
    kind = ir.ArrayType(FLOAT, count)
    constant = ir.GlobalVariable(e.function.module, kind, "zeros")
    constant.initializer = ir.Constant(kind, None)
    constant.global_constant = True
    constant.linkage = "internal"
    return constant


def for_share(
    e: Emitter, worker: ir.Value, batch: ir.Value, image: Callable[[ir.Value], None]
) -> None:
    """Emits `image(n)` for the part of the batch that is one worker's.

    The parts are fixed, so that sums over images come out the same every time.
    """
    builder = e.builder
    start, stop = (
        builder.sdiv(builder.mul(w, batch), int64(workers()))
        for w in (worker, e.add(worker, 1))
    )
    with builder.if_then(builder.icmp_signed("<", start, stop)):
        with e.loop(stop, start=start) as n:
            image(n)
