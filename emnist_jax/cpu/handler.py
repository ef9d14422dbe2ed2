"""The code that XLA calls, and that shares a kernel's work among XLA's threads.

XLA calls the generated `handler` with its call frame; the handler starts helpers on
XLA's thread pool, and all of them take units of work until none is left. The call never
waits for a helper that has not started, so it cannot deadlock when the pool is busy.
"""

from collections.abc import Callable

from llvmlite import ir

from emnist_jax.cpu.emitter import INT8, INT32, INT64, POINTER, Emitter, int64

Body = Callable[
    [Emitter, list[ir.Value], ir.Value, ir.Value, ir.Value], None
]  # emitter, buffers (arguments, then results), unit, slot, batch size

# The state of a call, in 8-byte fields: these counters, then the buffers' addresses.
_NEXT, _DONE, _SLOTS, _OWNERS, _UNITS, _BATCH, _BUFFERS = range(0, 56, 8)

# XLA's C interface (xla/ffi/api/c_api.h, version 0.3): byte offsets of fields.
_VERSION = (0, 3)
_FRAME_EXTENSION, _FRAME_API, _FRAME_CONTEXT = 8, 16, 24
_FRAME_ARGUMENTS, _FRAME_RESULTS = 72, 112
_BUFFER_DATA, _BUFFER_DIMENSIONS = 24, 40
_EXTENSION_METADATA, _METADATA_VERSION = 24, 24
_API_DESTROY_ERROR, _API_SCHEDULE = 64, 136


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


def _emit_work(
    module: ir.Module, body: Body, buffers: int, vectors: tuple[int, int]
) -> ir.Function:
    """`work(state)`: takes units until none is left."""
    kind = ir.FunctionType(ir.VoidType(), [POINTER])
    function = ir.Function(module, kind, "work")
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
    on_state = ir.FunctionType(ir.VoidType(), [POINTER])
    in_library = ir.FunctionType(POINTER, [POINTER])  # a method of XLA's interface
    malloc = ir.Function(module, ir.FunctionType(POINTER, [INT64]), "malloc")
    free = ir.Function(module, on_state, "free")
    give_way = ir.Function(module, ir.FunctionType(INT32, []), "sched_yield")
    work = _emit_work(module, body, arguments + results, vectors)

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
    e = Emitter(function, *vectors)
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
    most = int64(threads - 1)
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
