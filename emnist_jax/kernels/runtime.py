"""Compiles kernels and runs them as XLA custom calls on XLA's own threads.

A kernel is a body that computes one unit of work (an image, or one worker's share
of a batch). XLA calls the generated `handler` with its call frame; the handler
starts helpers on XLA's thread pool, and all of them take units until none is left.
The call never waits for a helper that has not started, so it cannot deadlock when
the pool is busy.
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
from emnist_jax.errors import UserError
from emnist_jax.kernels.emitter import (
    FLOAT,
    INT8,
    INT32,
    INT64,
    POINTER,
    Emitter,
    int64,
)

Body = Callable[
    [Emitter, list[ir.Value], ir.Value, ir.Value, ir.Value], None
]  # emitter, buffers (arguments, then results), unit, slot, batch size

_lock = threading.Lock()
_engines = []  # they own the machine code

# The state of a call, in 8-byte fields: these counters, then the buffers' addresses.
_NEXT, _DONE, _SLOTS, _OWNERS, _UNITS, _BATCH, _BUFFERS = range(0, 56, 8)

# XLA's C interface (xla/ffi/api/c_api.h, version 0.3): byte offsets of fields.
_VERSION = (0, 3)
_FRAME_EXTENSION, _FRAME_API, _FRAME_CONTEXT = 8, 16, 24
_FRAME_ARGUMENTS, _FRAME_RESULTS = 72, 112
_BUFFER_DATA, _BUFFER_DIMENSIONS = 24, 40
_EXTENSION_METADATA, _METADATA_VERSION = 24, 24
_API_DESTROY_ERROR, _API_SCHEDULE = 64, 136


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
    _emit_handler(module, *emit(*shape))
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


def _address(builder: ir.IRBuilder, pointer: ir.Value, offset: int) -> ir.Value:
    return builder.gep(pointer, [int64(offset)], source_etype=INT8)


def _get(builder, pointer, offset, kind=POINTER) -> ir.Value:
    return builder.load(_address(builder, pointer, offset), typ=kind)


def _set(builder, pointer, fields: dict[int, ir.Value]) -> None:
    for offset, value in fields.items():
        builder.store(value, _address(builder, pointer, offset))


def _increment(builder, state, field, ordering="monotonic") -> ir.Value:
    return builder.atomic_rmw(
        "add", _address(builder, state, field), int64(1), ordering
    )


def _emit_work(module: ir.Module, body: Body, buffers: int) -> ir.Function:
    """`work(state)`: takes units until none is left."""
    kind = ir.FunctionType(ir.VoidType(), [POINTER])
    function = ir.Function(module, kind, "work")
    e = Emitter(function, *vector_registers())
    builder, state = e.builder, function.args[0]
    units, batch = (_get(builder, state, f, INT64) for f in (_UNITS, _BATCH))
    pointers = [_get(builder, state, _BUFFERS + 8 * i) for i in range(buffers)]
    start, loop, end = (function.append_basic_block() for _ in range(3))
    # A helper that comes too late must not touch the buffers: they may be gone.
    first = _increment(builder, state, _NEXT)
    builder.cbranch(builder.icmp_signed("<", first, units), start, end)
    builder.position_at_end(start)
    slot = _increment(builder, state, _SLOTS)
    builder.branch(loop)
    builder.position_at_end(loop)
    unit = builder.phi(INT64)
    unit.add_incoming(first, start)
    body(e, pointers, unit, slot, batch)
    _increment(builder, state, _DONE, "release")
    following = _increment(builder, state, _NEXT)
    unit.add_incoming(following, builder.block)
    builder.cbranch(builder.icmp_signed("<", following, units), loop, end)
    builder.position_at_end(end)
    builder.ret_void()
    return function


def _emit_handler(
    module: ir.Module, body: Body, arguments: int, results: int, units: int | None
) -> None:
    """`handler(frame)`: what XLA calls."""
    on_state = ir.FunctionType(ir.VoidType(), [POINTER])
    in_library = ir.FunctionType(POINTER, [POINTER])  # a method of XLA's interface
    malloc = ir.Function(module, ir.FunctionType(POINTER, [INT64]), "malloc")
    free = ir.Function(module, on_state, "free")
    give_way = ir.Function(module, ir.FunctionType(INT32, []), "sched_yield")
    work = _emit_work(module, body, arguments + results)

    release = ir.Function(module, on_state, "release")  # the last owner frees
    builder = ir.IRBuilder(release.append_basic_block())
    owners = _address(builder, release.args[0], _OWNERS)
    before = builder.atomic_rmw("sub", owners, int64(1), "acq_rel")
    with builder.if_then(builder.icmp_signed("==", before, int64(1))):
        builder.call(free, [release.args[0]])
    builder.ret_void()

    helper = ir.Function(module, on_state, "helper")
    builder = ir.IRBuilder(helper.append_basic_block())
    builder.call(work, [helper.args[0]])
    builder.call(release, [helper.args[0]])
    builder.ret_void()

    function = ir.Function(module, ir.FunctionType(POINTER, [POINTER]), "handler")
    e = Emitter(function, *vector_registers())
    builder, frame = e.builder, function.args[0]
    null = ir.Constant(POINTER, None)

    # XLA first asks which version of the interface this was written for.
    extension = _get(builder, frame, _FRAME_EXTENSION)
    with builder.if_then(builder.icmp_unsigned("!=", extension, null)):
        metadata = _get(builder, extension, _EXTENSION_METADATA)
        major, minor = (ir.Constant(INT32, v) for v in _VERSION)
        version = {_METADATA_VERSION: major, _METADATA_VERSION + 4: minor}
        _set(builder, metadata, version)
        builder.ret(null)

    described = [
        _get(builder, _get(builder, frame, offset), 8 * i)
        for offset, count in ((_FRAME_ARGUMENTS, arguments), (_FRAME_RESULTS, results))
        for i in range(count)
    ]
    batch = _get(builder, _get(builder, described[0], _BUFFER_DIMENSIONS), 0, INT64)
    total = batch if units is None else int64(units)
    state_size = _BUFFERS + 8 * len(described)
    state = builder.call(malloc, [int64(state_size + 64)])
    counters = {_NEXT: 0, _DONE: 0, _SLOTS: 0, _OWNERS: 1}
    fields = {field: int64(value) for field, value in counters.items()}
    for i, buffer in enumerate(described):
        fields[_BUFFERS + 8 * i] = _get(builder, buffer, _BUFFER_DATA)
    _set(builder, state, {**fields, _UNITS: total, _BATCH: batch})

    api, context = (_get(builder, frame, f) for f in (_FRAME_API, _FRAME_CONTEXT))

    def call_api(method: int, structure: ir.Value) -> ir.Value:
        kind = in_library.as_pointer()
        return builder.call(_get(builder, api, method, kind), [structure])

    task = _address(builder, state, state_size)
    fields = (int64(40), null, context, helper, state)
    _set(builder, task, {8 * i: field for i, field in enumerate(fields)})
    others = builder.sub(total, int64(1))
    most = int64(workers() - 1)
    others = builder.select(builder.icmp_signed("<", others, most), others, most)
    with builder.if_then(builder.icmp_signed(">", others, int64(0))):
        with e.loop(others):
            _increment(builder, state, _OWNERS)
            error = call_api(_API_SCHEDULE, task)
            with builder.if_then(builder.icmp_unsigned("!=", error, null)):
                builder.call(release, [state])  # no pool: go on alone
                failed = _address(builder, state, state_size + 40)
                fields = (int64(24), null, error)
                _set(builder, failed, {8 * i: field for i, field in enumerate(fields)})
                call_api(_API_DESTROY_ERROR, failed)

    builder.call(work, [state])
    wait, idle, end = (function.append_basic_block() for _ in range(3))
    builder.branch(wait)
    builder.position_at_end(wait)
    address = _address(builder, state, _DONE)
    done = builder.load_atomic(address, "acquire", 8, typ=INT64)
    builder.cbranch(builder.icmp_signed("<", done, total), idle, end)
    builder.position_at_end(idle)
    builder.call(give_way, [])
    builder.branch(wait)
    builder.position_at_end(end)
    builder.call(release, [state])
    builder.ret(null)
