"""Devices and processes: the only module that knows how many there are.

The batch is split over all devices of all processes; parameters are the same on
each. `jax.pmap` is `jit(shard_map)` inside and works with plain global arrays.
"""

import contextlib
import functools
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from tqdm import tqdm

from emnist_jax import interrupts
from emnist_jax.cli import console
from emnist_jax.errors import UserError
from emnist_jax.mapping import AXIS, mapped

_process: int | None = None  # the one that computes with JAX, once it does


def check_fork() -> None:
    """Notes that this process computes with JAX, and refuses if a parent did before.

    JAX's threads are not there after a fork, and the child would wait for them for
    ever. To be called wherever computing begins.

    Raises:
      UserError: this process was forked off one that had computed.
    """
    global _process
    _process = _process or os.getpid()
    if _process != os.getpid():
        raise UserError(
            "JAX was used in the parent process and cannot be used after a fork: start "
            "processes with multiprocessing.get_context('spawn') or 'forkserver'"
        )


def initialize(
    coordinator_address: str | None, num_processes: int | None, process_id: int | None
) -> None:
    """Joins the other processes, before JAX does anything.

    Args:
      coordinator_address: host:port of process 0; None, as the others, where JAX
        finds out for itself.
      num_processes: how many there are.
      process_id: which this is, from 0.

    Raises:
      UserError: the others do not answer.
    """
    try:
        jax.distributed.initialize(
            coordinator_address,
            num_processes,
            process_id,
            initialization_timeout=60,
            heartbeat_timeout_seconds=20,
        )
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"--distributed: cannot join the other processes ({reason}); give "
            "--coordinator_address=HOST:PORT --num_processes=N --process_id=I, the "
            "same host and port to all"
        ) from error
    if not is_writer():
        console.be_quiet()


@contextlib.contextmanager
def ending_with_peers() -> Iterator[None]:
    """Within the block, a process that dies ends the others with a clear line.

    A process that is cut off without a word is noticed by its missing heartbeat,
    within `heartbeat_timeout_seconds`.
    """
    try:
        yield
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        if jax.process_count() == 1 or isinstance(error, UserError):
            raise
        print(
            f"error: process {jax.process_index()} of {jax.process_count()} lost "
            f"another one ({str(error).splitlines()[0]}); start them all again with "
            "the same commands, the run goes on from its last checkpoint",
            file=sys.stderr,
            flush=True,
        )
        os._exit(2)  # an ordinary exit would wait for the dead one, and then abort


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
    check_fork()
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
        raise UserError(
            f"--batch_size={batch_size}: must be divisible by the {devices} devices"
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
    check_fork()
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
        check_interrupts()
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
    starts = tqdm(
        range(mine.start, mine.stop, step),
        desc=progress,
        unit=" batches",
        leave=False,
        disable=None if progress and is_writer() else True,
    )
    batches = (
        jax.tree.map(lambda x, i=i: x[i : min(i + step, mine.stop)], rows)
        for i in starts
    )
    parts = list(map_batches(function, parameters, batches))
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


def check_interrupts() -> None:
    """Raises `Interrupted` if a signal has been noted.

    Not among several processes, which would wait for the one that leaves: they ask
    each other between epochs.
    """
    if jax.process_count() == 1:
        interrupts.check()


def may_agree(call: int) -> bool:
    """Whether processes talk to each other after the training call number `call`.

    One process asks itself after every call; several do so only now and then.
    """
    return jax.process_count() == 1 or call % 10 == 9


def agree(wanted: bool) -> bool:
    """Whether any process wants it; every process must ask at the same place."""
    if jax.process_count() == 1:
        return wanted
    return bool(np.any(multihost_utils.process_allgather(np.array(wanted))))


def is_writer() -> bool:
    """Whether this process writes the run's files."""
    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Waits until every process has come to the place called `name`."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)
