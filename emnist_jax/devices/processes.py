"""Several processes that train together: joining, agreeing, ending."""

import contextlib
import os
import sys
import zlib
from collections.abc import Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils

from emnist_jax.cli import backend, console, interrupts
from emnist_jax.cli.errors import UserError

_process: int | None = None  # the one that computes with JAX, once it does


def check_fork() -> None:
    """Notes that this process computes with JAX, and refuses if a parent did before.

    JAX's threads are not there after a fork, and the child would wait for them for
    ever. To be called wherever computing begins.

    Raises:
      UserError: this process was forked off one that had computed, or JAX cannot
        start.
    """
    global _process
    _process = _process or os.getpid()
    if _process != os.getpid():
        raise UserError(
            "JAX was used in the parent process and cannot be used after a fork: start "
            "processes with multiprocessing.get_context('spawn') or 'forkserver'"
        )
    backend.start()


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
    except (RuntimeError, ValueError, OSError) as error:
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


@contextlib.contextmanager
def failing_together() -> Iterator[None]:
    """A `UserError` of one process in the block is one of all, which would wait for it.

    Raises:
      UserError: the own one, or one that says that another process has its own.
    """
    error = None
    try:
        yield
    except UserError as raised:
        error = raised
    with ending_with_peers():
        if agree(error is not None):
            raise error or UserError("another process cannot begin, and says why")


def all_same(value: object) -> bool:
    """Whether `repr(value)` is the same on every process; all must ask at once."""
    if jax.process_count() == 1:
        return True
    mark = np.uint32(zlib.crc32(repr(value).encode()))
    with ending_with_peers():
        return bool(np.ptp(multihost_utils.process_allgather(mark)) == 0)


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


def several() -> bool:
    """Whether there are others than this process."""
    return jax.process_count() > 1


def is_writer() -> bool:
    """Whether this process writes the run's files."""
    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Waits until every process has come to the place called `name`."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)
