"""Which memory the CPU's kernels touch, and which a command keeps."""

import os
import signal
import subprocess
import sys

import pytest


def run_guarded(*arguments):
    command = [sys.executable, "-m", "tests.workers.guarded_kernels", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.long
def test_no_kernel_touches_memory_outside_of_its_buffers():
    done = run_guarded("4", "0")
    assert done.returncode == 0, done.stderr[-300:]
    calls, helpers, refusals = map(int, done.stdout.split())
    assert calls == 4 * 6 and helpers and refusals
    short = run_guarded("1", "0", "short")
    assert short.returncode == -signal.SIGSEGV


@pytest.mark.long
@pytest.mark.parametrize(
    "command, faults", [(True, (0, 60_000)), (False, (90_000, 1e9))]
)
def test_a_command_keeps_the_memory_of_its_steps(command, faults):
    """Otherwise the kernel clears the pages of every step anew: a fifth of its time.

    They are 35,000 for each of three steps; once in a while a step needs new ones.
    """
    program = f"""
import resource
from emnist_jax import cpu
from emnist_jax.devices import parallel
if {command}:
    cpu.prepare_process()
function = lambda x: jax.lax.optimization_barrier(jax.numpy.outer(x, x)).sum()
step = parallel.pmapped(function, (0,), 0)
import jax
x = jax.numpy.zeros((1, 6_000))  # 137 MiB inside
def faults():
    for _ in range(3):
        step(x).block_until_ready()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
print(-faults() + faults())
"""
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "1"}
    call = [sys.executable, "-c", program]
    found = subprocess.run(call, env=environment, capture_output=True, check=True)
    assert faults[0] <= int(found.stdout) <= faults[1]
