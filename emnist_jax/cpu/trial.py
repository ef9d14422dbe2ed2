"""Tries the kernels before their first use on a machine and a release of jaxlib.

Another process computes a tiny layer of each kind and its gradients both ways, so that
even a crash is only an answer. Success is remembered in the user's own cache folder;
failure is not, it is tried again at the next start. Where nothing can be remembered
(no home folder, or one that others can write) every start tries: some seconds.
"""

import contextlib
import functools
import hashlib
import importlib.metadata
import json
import os
import pathlib
import subprocess
import sys
import threading

import emnist_jax
from emnist_jax import cpu
from emnist_jax.storage import paths

_CHILD = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from emnist_jax.cpu import trial
trial.main()
"""
_lock = threading.Lock()


def passed() -> bool:
    """Whether the kernels work here; once a process, and warns if they do not."""
    with _lock:
        return _passed()


@functools.cache
def _passed() -> bool:
    verdict = _verdict()
    if verdict and verdict.exists():
        return True
    failure = _try()
    if failure:
        cpu.give_up(failure)
        return False
    if verdict:
        with contextlib.suppress(OSError):
            verdict.touch(mode=0o600)
    return True


def _verdict() -> pathlib.Path | None:
    """The file that stands for success; None if there is no folder for it."""
    import llvmlite.binding as llvm

    features = llvm.get_host_cpu_features().flatten()
    facts = [emnist_jax.__version__, llvm.get_host_cpu_name(), features]
    facts += [importlib.metadata.version(name) for name in ("jaxlib", "llvmlite")]
    home = paths.cache_home()
    names = ("emnist_jax", "kernels")
    folder = home and paths.private_folder(home, *names, warn=cpu.warn)
    name = hashlib.sha256("\n".join(facts).encode()).hexdigest()[:32]
    return folder and folder / name


def _try() -> str | None:
    """Runs `main` in a process of its own; what went wrong, or None."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"}
    command = [sys.executable, "-c", _CHILD, json.dumps(sys.path)]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=environment,
            timeout=300,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"they could not be tried: {error}"
    if done.returncode == 0:
        return None
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else f"a trial ended with {done.returncode}"


def main() -> None:
    """Computes a layer of each kind both ways; an error if they differ."""
    import jax
    import numpy as np

    from emnist_jax.cpu import convolution

    lanes = cpu.vector_length()
    channels = {"spread": (1, lanes), "gather": (lanes, 1)}
    generator = np.random.default_rng(0)

    def both(kind, forward, backward):
        def function(x, kernel, bias, gradient):
            y = forward(kind, True, x, kernel, bias)
            return y, *backward(kind, x, kernel, y, gradient)

        return jax.jit(function)

    for kind in convolution.KERNEL_KINDS:
        inputs, outputs = channels.get(kind, (lanes, lanes))
        size = {"up": 12, "down": 3}.get(kind, 6)
        shapes = (3, 6, 6, inputs), (3, 3, inputs, outputs), (outputs,)
        shapes += ((3, size, size, outputs),)
        arrays = [generator.standard_normal(s).astype(np.float32) for s in shapes]
        plain = both(kind, convolution.plain_forward, convolution.plain_backward)
        kernels = both(kind, convolution.forward, convolution.backward)
        for ours, expected in zip(kernels(*arrays), plain(*arrays), strict=True):
            if not np.allclose(ours, expected, rtol=1e-3, atol=1e-3):
                raise SystemExit(f"the kernel {kind!r} gives wrong results")
