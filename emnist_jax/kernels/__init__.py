"""Convolution kernels for CPUs: generated as LLVM code, called by XLA.

`emitter` writes vector loops and the matrix product that all kernels are made of,
`runtime` compiles them and joins them to XLA, the other modules hold the kernels.
"""

import functools
import importlib.util
import os


@functools.cache
def vector_length() -> int:
    """Floats in a vector register here; 0 if there are no kernels for this machine."""
    if os.name != "posix" or importlib.util.find_spec("llvmlite") is None:
        return 0
    from emnist_jax.kernels.runtime import vector_registers

    lanes, _ = vector_registers() or (0, 0)
    return lanes
