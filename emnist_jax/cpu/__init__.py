"""Layers that run well on a CPU: kernels, generated as LLVM code and called by XLA.

`emitter` writes vector loops and the matrix product that all kernels are made of,
`machine_code` compiles, `runtime` joins kernels to XLA, `winograd`, `strided` and
`one_channel` hold them, `convolution` chooses among them, `trial` tries them. Here
stands what concerns a process as a whole. Importing this changes nothing and loads
neither JAX nor LLVM.
"""

import contextlib
import ctypes
import functools
import importlib.util
import os
import sys

_OPTIONS = {
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"
}


def wanted() -> bool:
    """Whether all this is to be used; the one place that reads the switch."""
    return os.environ.get("EMNIST_JAX_CPU_LAYERS", "1") != "0"


_owns_process = False


def owns_process() -> bool:
    """Whether this process is a command of ours, and its settings ours to choose."""
    return _owns_process


def prepare_process() -> None:
    """Tells glibc to reuse freed memory instead of handing it back to the kernel.

    XLA allocates the activations of a step in one piece. glibc maps so large a piece
    anew each time, and the kernel clears every page of it again: a seventh of the
    time of a step (AMD EPYC with AVX-512). Commands call it first of all.

    Only the main thread's arena keeps so large a piece, so it is the main thread that
    runs the steps (`cli.backend.start`). With one arena for all threads every piece was
    kept, but small ones of other threads came to lie between the large ones, holes no
    longer fit, and the peak rose up to 4.1 GiB. A step of model03 with `best`, medians
    of 3 on two idle cores of an AMD EPYC with AVX-512, peak after 20 steps:

    | | ms | of it in the kernel | peak MiB |
    |---|---|---|---|
    | as here | 224 | 3 | 850 |
    | JAX' own thread runs it | 272 | 94 | 921 |
    | the same, one arena | 225 | 4 | 1,138 |
    | nothing set | 253 | 73 | 868 |
    """
    global _owns_process
    if not wanted():
        return
    _owns_process = True
    mmap_threshold, trim_threshold = -3, -1
    with contextlib.suppress(AttributeError, OSError, TypeError):  # not glibc
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(mmap_threshold, 2**30)
        mallopt(trim_threshold, 2**31 - 1)


def compiler_options() -> dict[str, str]:
    """The XLA options that pay on this machine, for `jax.jit(compiler_options=)`.

    Returns:
      Options by name; empty off CPU, with `EMNIST_JAX_CPU_LAYERS=0`, and where
      this jaxlib does not know them.
    """
    import jax

    on_cpu = jax.default_backend() == "cpu" and wanted()
    return dict(_known_options()) if on_cpu else {}


@functools.cache
def _known_options() -> dict[str, str]:
    import jax

    try:
        probe = jax.jit(lambda x: x + 1, compiler_options=_OPTIONS)
        probe.lower(jax.ShapeDtypeStruct((), "float32")).compile()
    except jax.errors.JaxRuntimeError:  # an unknown option or value
        return {}
    return _OPTIONS


def plain_layers() -> contextlib.AbstractContextManager:
    """In a `with` block: layers of `lax` alone, of which JAX knows every derivative.

    The kernels have a rule for gradients only, so `jax.jvp`, `jacfwd`, `linearize` and
    `hessian` of an encoder or a decoder work in this block and nowhere else:

      with emnist_jax.cpu.plain_layers():
        jacobian = jax.jacfwd(decode)(latents)

    What `jax.jit` has compiled outside of the block is not used in it.
    """
    from emnist_jax.cpu import convolution

    return convolution.plain_only(True)


def threads() -> int:
    """How many threads this process is to compute with.

    NPROC of the environment, which XLA reads too, or the cores that it may run on.
    """
    told = os.environ.get("NPROC", "")
    if told.isdecimal() and int(told) > 0:
        return int(told)
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


_given_up = False


def kernels_work() -> bool:
    """Whether the kernels give right results here; tried at first use."""
    from emnist_jax.cpu import trial

    return not _given_up and trial.passed()


def give_up(reason: str) -> None:
    """Has the plain layers do the work from now on, with one warning."""
    global _given_up
    if not _given_up:
        reason = " ".join(reason.split())
        warn(
            f"the CPU kernels do not work here ({reason}); the layers of JAX are used, "
            "which are slower"
        )
    _given_up = True


def warn(text: str) -> None:
    """A line on standard error, if that is open."""
    if sys.stderr:
        print(f"warning: {text}", file=sys.stderr)


@functools.cache
def vector_length() -> int:
    """Floats in a vector register here; 0 if there are no kernels for this machine."""
    if os.name != "posix" or importlib.util.find_spec("llvmlite") is None:
        return 0
    try:
        from emnist_jax.cpu.runtime import vector_registers

        lanes, _ = vector_registers() or (0, 0)
    except Exception as error:  # an LLVM that cannot be loaded, say
        give_up(f"{type(error).__name__}: {error}")
        return 0
    return lanes
