"""Runs every CPU kernel on buffers between pages that nothing may touch.

  python -m tests.workers.guarded_kernels CASES SEED [short]

Each buffer lies in a mapping of its own, with inaccessible memory before and behind
it; once it begins where that ends, once it ends where that begins. Arguments cannot be
written. Whatever a kernel touches outside ends this process with a signal. Results are
NaN before, and must not be after. The first cases are those below, the rest random.
With `short`, results lack a float: to see that it is noticed.
"""

import contextlib
import ctypes
import itertools
import mmap
import sys
import threading

import jax.numpy as jnp
import numpy as np

from emnist_jax import cpu
from emnist_jax.cpu import convolution, interface, runtime

GUARD = 2**24
SIZES = [(3, 5), (9, 30)]  # even ones where there are no others

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mprotect.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
_task = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_method = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)


class Buffer:
    """A float32 array between guards."""

    def __init__(self, shape: tuple[int, ...], at_end: bool, missing: int = 0):
        """Maps it; `at_end` puts it before the second guard, not behind the first."""
        if missing:
            shape = (int(np.prod(shape)) - missing,)
        size = 4 * int(np.prod(shape))
        self.room = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        self.mapping = mmap.mmap(-1, self.room + 2 * GUARD)
        self.start = ctypes.addressof(ctypes.c_char.from_buffer(self.mapping)) + GUARD
        self._protect(self.start - GUARD, GUARD, 0)
        self._protect(self.start + self.room, GUARD, 0)
        self.address = self.start + (self.room - size if at_end else 0)
        flat = (ctypes.c_float * (size // 4)).from_address(self.address)
        self.array = np.ctypeslib.as_array(flat).reshape(shape)
        self.dims = (ctypes.c_int64 * len(shape))(*shape)
        self.struct = interface.Buffer(
            data=self.address,
            rank=len(shape),
            dims=ctypes.addressof(self.dims),
        )

    def freeze(self) -> None:
        """From now on it can only be read."""
        self._protect(self.start, self.room, mmap.PROT_READ)

    def _protect(self, address: int, size: int, protection: int) -> None:
        if _libc.mprotect(address, size, protection):
            raise OSError(ctypes.get_errno(), "mprotect")


class Caller:
    """Stands in for `runtime.call` and for XLA."""

    def __init__(self):
        """Counts what it has run."""
        self.calls = self.helpers = self.refusals = self.missing = 0
        self.at_end = self.refuse = False
        self._threads = []
        self._api = interface.Api()
        self._methods = _method(self._schedule), _method(self._destroy)
        addresses = [ctypes.cast(m, ctypes.c_void_p).value for m in self._methods]
        self._api.ThreadPool_Schedule, self._api.Error_Destroy = addresses

    def __call__(self, target, results, *arguments):
        """As `runtime.call`."""
        given = [Buffer(x.shape, self.at_end) for x in arguments]
        for buffer, x in zip(given, arguments, strict=True):
            buffer.array[...] = x
            buffer.freeze()
        made = [Buffer(shape, self.at_end, self.missing) for shape in results]
        for buffer in made:
            buffer.array[...] = np.nan
        frame = interface.CallFrame(api=ctypes.addressof(self._api))
        lists = [
            (ctypes.c_void_p * len(b))(*(ctypes.addressof(v.struct) for v in b))
            for b in (given, made)
        ]
        frame.args.args, frame.rets.rets = map(ctypes.addressof, lists)
        runtime.handler_of(target)(ctypes.addressof(frame))
        while self._threads:
            self._threads.pop().join()
        self.calls += 1
        return [jnp.array(buffer.array) for buffer in made]

    def _schedule(self, address: int) -> int | None:
        request = interface.ThreadPool_Schedule_Args.from_address(address)
        if self.refuse:
            return 1
        self.helpers += 1
        work = threading.Thread(target=_task(request.task), args=(request.data,))
        self._threads.append(work)
        work.start()
        return None

    def _destroy(self, address: int) -> None:
        self.refusals += interface.Error_Destroy_Args.from_address(address).error == 1


def cases(count: int, seed: int):
    """Yields kind, batch, height, width, channels in and out, relu."""
    lanes = cpu.vector_length()
    fixed = itertools.product(convolution.KERNEL_KINDS, SIZES)
    random = np.random.default_rng(seed)
    for number in range(count):
        kind, (height, width) = next(fixed, (None, (0, 0)))
        inputs, outputs = lanes * random.integers(1, 5, 2)
        if kind is None:
            kind = str(random.choice(convolution.KERNEL_KINDS))
            height, width = random.integers(1, 33, 2)
        if kind == "down":
            height, width = height + height % 2, width + width % 2
        inputs = 1 if kind == "spread" else inputs
        outputs = 1 if kind == "gather" else outputs
        numbers = (number % 5 + 1, height, width, inputs, outputs)
        yield kind, *map(int, numbers), bool(random.integers(2))


def check(caller: Caller, case: tuple) -> None:
    """Forward and backward; an error if something remains unwritten."""
    kind, batch, height, width, inputs, outputs, relu = case
    random = np.random.default_rng(0)

    def data(*shape):
        return jnp.asarray(random.standard_normal(shape), jnp.float32)

    x, kernel, bias = (
        data(batch, height, width, inputs),
        data(3, 3, inputs, outputs),
        data(outputs),
    )
    for caller.at_end, caller.refuse in ((True, False), (False, True)):
        y = convolution.forward(kind, relu, x, kernel, bias)
        mask = y if relu else None
        made = [y, *convolution.backward(kind, x, kernel, mask, data(*y.shape))]
        if not all(np.isfinite(v).all() for v in made):
            raise SystemExit(f"{case}: a result was not written")


def main() -> None:
    """Prints how much was run."""
    caller = Caller()
    runtime.call = caller
    runtime.workers = lambda: 2  # however many processors there are
    count, seed, *short = sys.argv[1:]
    caller.missing = len(short)
    for case in cases(int(count), int(seed)):
        print(*case, file=sys.stderr)  # the last one is what went wrong
        check(caller, case)
    print(caller.calls, caller.helpers, caller.refusals)


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        main()
