"""One function over several devices: `jax.pmap`, or the same without it."""

import contextlib
import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, PartitionSpec

from emnist_jax import cpu
from emnist_jax.cli import console

AXIS = "devices"


def mapped(
    function: Callable,
    in_axes: tuple[int | None, ...],
    out_axes: Any,
    donate: tuple[int, ...] = (),
    devices: Sequence[jax.Device] | None = None,
) -> Callable:
    """`function` over devices, compiled with the options that pay here.

    Args:
      function: pure; sees one device's part of the mapped arguments and names the
        device axis `AXIS`.
      in_axes: 0 for arguments `[local devices, ...]` that are split, None for
        those that every device gets whole.
      out_axes: the same for the outputs.
      donate: positions of arguments whose memory may be reused.
      devices: which ones; None for all of all processes. Those of a described
        topology are not here: for them `__wrapped__.lower` and `compile` are all
        there is.

    Returns:
      The function, compiled by its first call, which says so.
    """
    return _announced(_mapped(function, in_axes, out_axes, donate, devices))


def _announced(compiled: Callable) -> Callable:
    calls = iter([console.doing("compiling")])

    @functools.wraps(compiled)
    def call(*arguments: Any) -> Any:
        with next(calls, contextlib.nullcontext()):
            return compiled(*arguments)

    return call


def _mapped(
    function: Callable,
    in_axes: tuple[int | None, ...],
    out_axes: Any,
    donate: tuple[int, ...],
    devices: Sequence[jax.Device] | None,
) -> Callable:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", DeprecationWarning)
            compiled = jax.pmap(
                function,
                axis_name=AXIS,
                in_axes=in_axes,
                out_axes=out_axes,
                donate_argnums=donate,
                devices=devices,
            )
    except (AttributeError, DeprecationWarning):  # a JAX that gives it up
        return shard_mapped(function, in_axes, out_axes, donate, devices)
    # Only pmap takes no compiler options, hence the outer jit. Over several
    # processes it would see local arrays only, and each process would go alone.
    options = _options(devices)
    if jax.process_count() > 1 or not options:
        return compiled
    return jax.jit(compiled, donate_argnums=donate, compiler_options=options)


def _options(devices: Sequence[jax.Device] | None) -> dict[str, str]:
    """Compiler options; none for devices of another kind than those that are here."""
    here = devices is None or devices[0].platform == jax.default_backend()
    return cpu.compiler_options() if here else {}


def shard_mapped(
    function: Callable,
    in_axes: tuple[int | None, ...],
    out_axes: Any,
    donate: tuple[int, ...] = (),
    devices: Sequence[jax.Device] | None = None,
) -> Callable:
    """What `mapped` gives, by `jit` over `shard_map`, for a JAX without `pmap`."""
    mesh = Mesh(np.array(devices or jax.devices()), (AXIS,))
    in_specs, out_specs = _specs(in_axes), _specs(out_axes)

    def part(*arguments: Any) -> Any:  # mapped ones come as [1, ...]
        mine = _map_axes(lambda x: x[0], in_axes, arguments)
        return _map_axes(lambda x: x[None], out_axes, function(*mine))

    over_processes = devices is None and jax.process_count() > 1
    compiled = jax.jit(
        jax.shard_map(
            part, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False
        ),
        donate_argnums=() if over_processes else donate,  # there buffers are shared
        compiler_options=_options(devices) or None,
    )
    if not over_processes:
        return compiled

    def call(*arguments: Any) -> Any:
        everyones = multihost_utils.host_local_array_to_global_array(
            arguments, mesh, in_specs
        )
        return multihost_utils.global_array_to_host_local_array(
            compiled(*everyones), mesh, out_specs
        )

    return call


def _map_axes(change: Callable, axes: Any, values: Any) -> Any:
    """Changes every array of `values` that is mapped by `axes`, a prefix of it."""
    return jax.tree.map(
        lambda axis, part: part if axis is None else jax.tree.map(change, part),
        axes,
        values,
        is_leaf=lambda axis: axis is None,
    )


def _specs(axes: Any) -> Any:
    return jax.tree.map(
        lambda axis: PartitionSpec() if axis is None else PartitionSpec(AXIS),
        axes,
        is_leaf=lambda axis: axis is None,
    )
