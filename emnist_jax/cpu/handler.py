"""The code that XLA calls, and that shares a kernel's work among XLA's threads.

XLA calls the generated `handler` with its call frame; the handler starts helpers on
XLA's thread pool, and all of them take units of work until none is left. The call never
waits for a helper that has not started, so it cannot deadlock when the pool is busy.
"""

import ctypes
from collections.abc import Callable

from llvmlite import ir

from emnist_jax.cpu import interface
from emnist_jax.cpu.emitter import INT8, INT32, INT64, POINTER, Emitter, int64
from emnist_jax.cpu.interface import CallFrame

Body = Callable[
    [Emitter, list[ir.Value], ir.Value, ir.Value, ir.Value], None
]  # emitter, buffers (arguments, then results), unit, slot, batch size

# The state of a call, in 8-byte fields: these counters, then the buffers' addresses.
_NEXT, _DONE, _SLOTS, _OWNERS, _UNITS, _BATCH, _BUFFERS = range(0, 56, 8)

_ON_STATE = ir.FunctionType(ir.VoidType(), [POINTER])
_IN_LIBRARY = ir.FunctionType(POINTER, [POINTER])  # as all of XLA's interface
_Schedule, _Destroy = interface.ThreadPool_Schedule_Args, interface.Error_Destroy_Args


def _address(builder: ir.IRBuilder, pointer: ir.Value, offset: int) -> ir.Value:
    return builder.gep(pointer, [int64(offset)], source_etype=INT8)


def _get(builder, pointer, offset, kind=POINTER) -> ir.Value:
    return builder.load(_address(builder, pointer, offset), typ=kind)


def _set(builder, pointer, fields: dict[int, ir.Value]) -> None:
    for offset, value in fields.items():
        builder.store(value, _address(builder, pointer, offset))


def _fill(builder, pointer, structure: type[ctypes.Structure], **fields) -> None:
    """Writes one of XLA's structs; `fields` are all but its size and extensions."""
    fields |= {
        "struct_size": int64(ctypes.sizeof(structure)),
        "extension_start": ir.Constant(POINTER, None),
    }
    offsets = {getattr(structure, name).offset: v for name, v in fields.items()}
    _set(builder, pointer, offsets)


def _increment(builder, state, field, ordering="monotonic") -> ir.Value:
    return builder.atomic_rmw(
        "add", _address(builder, state, field), int64(1), ordering
    )


def _emit_work(
    module: ir.Module, body: Body, buffers: int, vectors: tuple[int, int]
) -> ir.Function:
    """`work(state)`: takes units until none is left."""
    function = ir.Function(module, _ON_STATE, "work")
    e = Emitter(function, *vectors)
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


def emit(
    module: ir.Module,
    body: Body,
    arguments: int,
    results: int,
    units: int | None,
    threads: int,
    vectors: tuple[int, int],
) -> None:
    """Emits `handler(frame)`: what XLA calls.

    Args:
      module: where to.
      body: computes one unit of work.
      arguments: number of buffers that are arguments.
      results: of those that are results.
      units: of work; None: one per image, the leading axis of the first argument.
      threads: that share a call at most.
      vectors: floats in a vector register and number of registers.
    """
    work = _emit_work(module, body, arguments + results, vectors)
    release = _emit_release(module)
    helper = ir.Function(module, _ON_STATE, "helper")
    builder = ir.IRBuilder(helper.append_basic_block())
    builder.call(work, [helper.args[0]])
    builder.call(release, [helper.args[0]])
    builder.ret_void()

    function = ir.Function(module, _IN_LIBRARY, "handler")
    e = Emitter(function, *vectors)
    builder, frame = e.builder, function.args[0]
    _answer_metadata(function, builder, frame)
    described = [
        _get(builder, _get(builder, frame, offset), 8 * i)
        for offset, count in (
            (CallFrame.args.offset + interface.Args.args.offset, arguments),
            (CallFrame.rets.offset + interface.Rets.rets.offset, results),
        )
        for i in range(count)
    ]
    dimensions = _get(builder, described[0], interface.Buffer.dims.offset)
    batch = _get(builder, dimensions, 0, INT64)
    total = batch if units is None else int64(units)
    state_size = _BUFFERS + 8 * len(described)
    malloc = ir.Function(module, ir.FunctionType(POINTER, [INT64]), "malloc")
    requests = sum(map(ctypes.sizeof, (_Schedule, _Destroy)))  # they lie behind it
    state = builder.call(malloc, [int64(state_size + requests)])
    counters = {_NEXT: 0, _DONE: 0, _SLOTS: 0, _OWNERS: 1}
    fields = {field: int64(value) for field, value in counters.items()}
    for i, buffer in enumerate(described):
        fields[_BUFFERS + 8 * i] = _get(builder, buffer, interface.Buffer.data.offset)
    _set(builder, state, {**fields, _UNITS: total, _BATCH: batch})
    others = builder.sub(total, int64(1))
    most = int64(threads - 1)
    others = builder.select(builder.icmp_signed("<", others, most), others, most)
    with builder.if_then(builder.icmp_signed(">", others, int64(0))):
        request = _address(builder, state, state_size)
        _start_helpers(e, frame, state, request, others, helper, release)
    builder.call(work, [state])
    _wait(function, builder, state, total)
    builder.call(release, [state])
    builder.ret(ir.Constant(POINTER, None))


def _emit_release(module: ir.Module) -> ir.Function:
    """`release(state)`: its last owner frees it."""
    free = ir.Function(module, _ON_STATE, "free")
    release = ir.Function(module, _ON_STATE, "release")
    builder = ir.IRBuilder(release.append_basic_block())
    owners = _address(builder, release.args[0], _OWNERS)
    before = builder.atomic_rmw("sub", owners, int64(1), "acq_rel")
    with builder.if_then(builder.icmp_signed("==", before, int64(1))):
        builder.call(free, [release.args[0]])
    builder.ret_void()
    return release


def _answer_metadata(function: ir.Function, builder, frame) -> None:
    """Returns with the version of the interface if XLA asks for it, as it does first.

    The question is an extension of the call; others are none of our business.
    """
    null = ir.Constant(POINTER, None)
    first = _get(builder, frame, CallFrame.extension_start.offset)
    entry = builder.block
    loop, look, answer, following, end = (
        function.append_basic_block() for _ in range(5)
    )
    builder.branch(loop)
    builder.position_at_end(loop)
    extension = builder.phi(POINTER)
    extension.add_incoming(first, entry)
    builder.cbranch(builder.icmp_unsigned("==", extension, null), end, look)
    builder.position_at_end(look)
    base, question = interface.Extension_Base, interface.Metadata_Extension
    kind = _get(builder, extension, base.type.offset, INT32)
    asked = ir.Constant(INT32, interface.EXTENSION_METADATA)
    builder.cbranch(builder.icmp_signed("==", kind, asked), answer, following)
    builder.position_at_end(following)
    extension.add_incoming(_get(builder, extension, base.next.offset), following)
    builder.branch(loop)
    builder.position_at_end(answer)
    metadata = _get(builder, extension, question.metadata.offset)
    version = _address(builder, metadata, interface.Metadata.api_version.offset)
    numbers = {
        interface.Api_Version.major_version.offset: interface.API_MAJOR,
        interface.Api_Version.minor_version.offset: interface.API_MINOR,
    }
    _set(builder, version, {k: ir.Constant(INT32, v) for k, v in numbers.items()})
    builder.ret(null)
    builder.position_at_end(end)


def _start_helpers(
    e: Emitter, frame, state, request, count, helper: ir.Function, release: ir.Function
) -> None:
    """Schedules `count` helpers on XLA's threads; `request` is memory to ask with."""
    builder = e.builder
    api = _get(builder, frame, CallFrame.api.offset)
    context = _get(builder, frame, CallFrame.ctx.offset)

    def call_api(method, structure: ir.Value) -> ir.Value:
        kind = _IN_LIBRARY.as_pointer()
        return builder.call(_get(builder, api, method.offset, kind), [structure])

    _fill(builder, request, _Schedule, ctx=context, task=helper, data=state)
    with e.loop(count):
        _increment(builder, state, _OWNERS)
        error = call_api(interface.Api.ThreadPool_Schedule, request)
        failed = builder.icmp_unsigned("!=", error, ir.Constant(POINTER, None))
        with builder.if_then(failed):
            builder.call(release, [state])  # no pool: go on alone
            thrown = _address(builder, request, ctypes.sizeof(_Schedule))
            _fill(builder, thrown, _Destroy, error=error)
            call_api(interface.Api.Error_Destroy, thrown)


def _wait(function: ir.Function, builder, state, total) -> None:
    """Until all units of work are done."""
    kind = ir.FunctionType(INT32, [])
    give_way = ir.Function(function.module, kind, "sched_yield")
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
