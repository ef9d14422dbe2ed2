"""A trace of the first steps, for TensorBoard or Perfetto."""

import contextlib
import pathlib
from collections.abc import Iterator
from typing import Any

import jax

from emnist_jax.storage import files
from emnist_jax.training.step import Step


@contextlib.contextmanager
def profiled(step: Step, folder: pathlib.Path) -> Iterator[Step]:
    """Yields `step`, whose calls 2 to 11 are traced into a folder.

    Raises:
      UserError: the folder cannot be written, or the disk is full.
    """
    calls = 0
    with contextlib.ExitStack() as trace:

        def traced(state: Any, batch: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == 2:  # the first one compiles
                trace.enter_context(_trace(folder))
            elif calls == 12:
                trace.close()
            return step(state, batch)

        yield traced


@contextlib.contextmanager
def _trace(folder: pathlib.Path) -> Iterator[None]:
    with files.write_atomically(folder) as temporary:
        jax.profiler.start_trace(str(temporary))
        try:
            yield
        finally:
            try:
                jax.profiler.stop_trace()
            except jax.errors.JaxRuntimeError as error:  # JAX' way to say OSError
                raise OSError(str(error)) from error
