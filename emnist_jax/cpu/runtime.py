"""Compiles kernels and runs them as XLA custom calls on XLA's own threads.

A kernel is a body that computes one unit of work (an image, or one worker's share
of a batch); `handler` is what joins it to XLA.
"""

import contextlib
import ctypes
import functools
import hashlib
import os
import pathlib
import threading
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import llvmlite.binding as llvm
from llvmlite import ir

from emnist_jax import files
from emnist_jax.cpu import handler
from emnist_jax.cpu.emitter import FLOAT, Emitter, int64
from emnist_jax.errors import UserError

_lock = threading.Lock()
_engines = []  # they own the machine code


def workers() -> int:
    """How many threads share a call."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _machine() -> llvm.TargetMachine:
    """A target machine; the engine that takes it also frees it."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(),
        features=llvm.get_host_cpu_features().flatten(),
        opt=3,
        jit=True,
    )


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
    engine = _compile(str(module))
    _engines.append(engine)
    address = engine.get_function_address("handler")
    signature = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)
    jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(signature(address)), "cpu")
    return name


def _compile(source: str) -> llvm.ExecutionEngine:
    """Machine code of a module, kept beside JAX's compiled programs if those are."""
    machine = _machine()
    module = llvm.parse_assembly(source)
    facts = (source, machine.triple, str(llvm.llvm_version_info))
    facts += (llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten())
    key = hashlib.sha256("\n".join(facts).encode()).hexdigest()
    folder = jax.config.jax_compilation_cache_dir
    path = pathlib.Path(folder or "") / "emnist_jax" / f"{key}.o"
    code = _read_code(path) if folder else None
    if code is None:
        module.verify()
        tuning = llvm.create_pipeline_tuning_options(speed_level=2)
        tuning.loop_unrolling = tuning.loop_vectorization = False
        tuning.slp_vectorization = False
        passes = llvm.create_pass_builder(machine, tuning)
        passes.getModulePassManager().run(module, passes)
    engine = llvm.create_mcjit_compiler(module, machine)
    if code is not None:
        engine.set_object_cache(getbuffer_func=lambda _: code)
    elif folder:
        engine.set_object_cache(notify_func=lambda _, code: _write_code(path, code))
    engine.finalize_object()
    return engine


def _read_code(path: pathlib.Path) -> bytes | None:
    try:
        stored = path.read_bytes()
    except OSError:
        return None
    digest, code = stored[:32], stored[32:]
    return code if hashlib.sha256(code).digest() == digest else None


def _write_code(path: pathlib.Path, code: bytes) -> None:
    # If it cannot be written the next process compiles again, nothing worse.
    with contextlib.suppress(UserError), files.write_atomically(path) as temporary:
        temporary.write_bytes(hashlib.sha256(code).digest() + code)


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
