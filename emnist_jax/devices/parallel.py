"""Devices and processes: the only module that knows how many there are.

The batch is split over all devices of all processes; parameters are the same on
each. `jax.pmap` is `jit(shard_map)` inside and works with plain global arrays.
"""

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from emnist_jax.cli import console
from emnist_jax.cli.errors import UserError
from emnist_jax.devices import processes
from emnist_jax.devices.mapping import AXIS, mapped


def pmapped(
    function: Callable,
    in_axes: tuple[int | None, ...],
    out_axes: Any,
    donate_first: bool = False,
) -> Callable:
    """`function` over all devices, compiled with the options that pay here.

    Args:
      function: pure; sees one device's part of the mapped arguments and names the
        device axis `AXIS`.
      in_axes: 0 for arguments `[local devices, ...]` that are split, None for
        those that every device gets whole.
      out_axes: the same for the outputs.
      donate_first: whether the first argument's memory may be reused.

    Returns:
      The compiled function.
    """
    processes.check_fork()
    return mapped(function, in_axes, out_axes, (0,) if donate_first else ())


def mean_over_devices(tree: Any) -> Any:
    """Mean of every leaf over all devices; call it inside a pmapped function."""
    return jax.lax.pmean(tree, AXIS)


def device_index() -> jax.Array:
    """Which part of the global batch is this device's; inside a pmapped function."""
    return jax.lax.axis_index(AXIS)


def range_over_devices(x: jax.Array) -> jax.Array:
    """Largest less smallest value of `x` over all devices; inside a pmapped call."""
    return jax.lax.pmax(x.max(), AXIS) - jax.lax.pmin(x.min(), AXIS)


def check_batch_size(batch_size: int, examples: int) -> None:
    """Checks that a global batch can be split over all devices and be filled.

    Raises:
      UserError: it is not divisible, or there are fewer examples.
    """
    devices = jax.device_count()
    if batch_size % devices:
        fewer = max(n for n in range(1, devices) if batch_size % n == 0)
        raise UserError(
            f"--batch_size={batch_size}: must be divisible by the {devices} devices; "
            f"{batch_size // devices * devices or devices} is, or use {fewer} of them"
        )
    if batch_size > examples:
        raise UserError(
            f"--batch_size={batch_size}: more than the {examples} training images"
        )


def split(batch: np.ndarray, axis: int = 0) -> np.ndarray:
    """This process' share of a global batch, a leading axis for its devices.

    Args:
      batch: the same on every process, `[..., B, ...]` with B on `axis`.
      axis: which axis to split.

    Returns:
      `[local devices, ..., B / devices, ...]`.
    """
    shares = np.split(batch, jax.device_count(), axis=axis)
    first = jax.process_index() * jax.local_device_count()
    return np.stack(shares[first : first + jax.local_device_count()])


def put_split(batch: np.ndarray) -> jax.Array | np.ndarray:
    """`split` of a batch `[B, ...]`, already on its way to the local devices."""
    shares = split(batch)
    if jax.process_count() > 1:  # pmap takes local NumPy arrays there
        return shares
    return jax.device_put(shares, _local_sharding(AXIS))


def replicate(tree: Any) -> Any:
    """Puts a copy of every leaf on each local device."""
    return jax.device_put(tree, _local_sharding())


def _local_sharding(*axes: str) -> jax.sharding.NamedSharding:
    mesh = jax.sharding.Mesh(np.array(jax.local_devices()), (AXIS,))
    return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes))


def rows_per_call() -> int:
    """How many rows this process computes at once outside of training.

    A fixed number for each device: whatever an image is batched with, and on
    however many devices, its outputs come from a program of one shape.
    """
    per_device = 128 if jax.default_backend() == "cpu" else 1024
    return per_device * jax.local_device_count()


def map_batches(
    function: Callable[[Any, Any], Any], parameters: Any, batches: Iterable[Any]
) -> Iterator[Any]:
    """Runs a function of `(parameters, batch)` over a stream, on all local devices.

    Args:
      function: pure and hashable; gives a tree of arrays `[B, ...]`.
      parameters: a tree of arrays.
      batches: trees of arrays `[b, ...]`, b at most `rows_per_call()`.

    Yields:
      Trees of NumPy arrays `[b, ...]`. Nothing is exchanged between processes.
    """
    processes.check_fork()
    devices, rows_at_once = jax.local_device_count(), rows_per_call()
    compiled = _local_map(function)

    def shares(rows: np.ndarray) -> np.ndarray:
        padded = np.zeros((rows_at_once, *rows.shape[1:]), rows.dtype)
        padded[: len(rows)] = rows
        return padded.reshape(devices, -1, *rows.shape[1:])

    def fetch(outputs: Any, count: int) -> Any:
        return jax.tree.map(
            lambda x: np.asarray(x).reshape(-1, *x.shape[2:])[:count], outputs
        )

    parameters = replicate(parameters)
    pending = None
    for batch in batches:
        processes.check_interrupts()
        count = len(jax.tree.leaves(batch)[0])
        started = compiled(parameters, jax.tree.map(shares, batch)), count
        if pending:  # fetched while the next batch computes
            yield fetch(*pending)
        pending = started
    if pending:
        yield fetch(*pending)


def map_rows(
    function: Callable[[Any, Any], Any],
    parameters: Any,
    rows: Any,
    progress: str | None = None,
) -> Any:
    """Runs a function of `(parameters, batch)` once on every row, over all devices.

    Args:
      function: as for `map_batches`.
      parameters: a tree, the same on every process.
      rows: a tree of arrays `[N, ...]`, the same on every process, N at least 1.
      progress: name of a progress bar, None for none.

    Returns:
      A tree of NumPy arrays `[N, ...]`, whole on every process.
    """
    count = len(jax.tree.leaves(rows)[0])
    share = -(-count // jax.process_count())
    first = min(jax.process_index() * share, count - 1)  # nobody is left without
    mine = range(first, min(first + share, count))
    step = rows_per_call()
    batches = (
        jax.tree.map(lambda x, i=i: x[i : min(i + step, mine.stop)], rows)
        for i in range(mine.start, mine.stop, step)
    )
    parts = []
    with console.bar(len(mine), progress, "images") as bar:
        for part in map_batches(function, parameters, batches):
            parts.append(part)
            bar.update(len(jax.tree.leaves(part)[0]))
    local = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
    if jax.process_count() == 1:
        return local

    def gather(leaf: np.ndarray) -> np.ndarray:
        padded = np.zeros((share, *leaf.shape[1:]), leaf.dtype)
        padded[: len(leaf)] = leaf
        everyone = multihost_utils.process_allgather(padded)
        return np.asarray(everyone).reshape(-1, *leaf.shape[1:])[:count]

    return jax.tree.map(gather, local)


@functools.lru_cache(maxsize=16)
def _local_map(function: Callable) -> Callable:
    # On local devices only: processes compute rows of their own, each alone.
    return mapped(function, (None, 0), 0, devices=jax.local_devices())
