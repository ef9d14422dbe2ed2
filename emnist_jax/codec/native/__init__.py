"""The codec's pixels in machine code for CPUs: exact, without JAX, safe after a fork.

`language` and `program` write loops as LLVM's code; `dots`, `network`, `near`, `layers`
and `coder` are docs/codec_format.md, written with them; `machine` compiles that, in a
quarter of a second at first use, and `trial` tries it; `weights`, `job` and `calls`
hand over a model and images.
"""

import functools
import os
import threading
from collections.abc import Callable

import numpy as np

from emnist_jax.codec.integer_model import IntegerModel
from emnist_jax.codec.native import calls, dots, trial
from emnist_jax.codec.native.machine import Machine
from emnist_jax.cpu import machine_code

options = {}  # of `_compiled`, set by tests: processor, checked


# Threads do not compile the same at once. A child forked meanwhile begins anew.
_turn = [threading.Lock()]
os.register_at_fork(after_in_child=lambda: _turn.__setitem__(0, threading.Lock()))


@functools.cache
def _compiled(encodes: bool, lossy: bool, processor=None, checked=False) -> Machine:
    processor = processor or machine_code.host()
    for form in dots.forms(processor[1]):
        machine = Machine(encodes, lossy, form, processor, checked)
        if trial.passes(machine, encodes, lossy):
            return machine
    raise RuntimeError("its results are wrong")


def prepared(encodes: bool, max_error: int) -> Machine:
    """The machine for an encoder or a decoder, compiled and tried at first use.

    Raises:
      Exception: LLVM cannot be used here, or what it makes is wrong.
    """
    with _turn[0]:
        return _compiled(encodes, max_error > 0, **options)


def encode(
    model: IntegerModel,
    blocks: list[np.ndarray],
    max_error: int,
    report: Callable[[float], None],
    weight: int | None,
) -> tuple[list[bytes], np.ndarray]:
    """As `pixel_coding.encode`."""
    machine = prepared(True, max_error)
    return calls.encode(machine, model, blocks, max_error, report, weight)


def decode(
    model: IntegerModel,
    streams: list[bytes],
    counts: list[int],
    shape: tuple[int, int],
    max_error: int,
    report: Callable[[float], None],
    lossy: bool,
) -> list[np.ndarray]:
    """As `pixel_coding.decode`."""
    rest = shape, (max_error, 0 if lossy else None), report
    return calls.decode(prepared(False, max_error), model, streams, counts, *rest)
