"""Ctrl-C and SIGTERM: raised at once, or noted by work that saves before it ends."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SAME_REQUEST = 1.0  # seconds; `timeout` and others send a signal twice at once


class Interrupted(BaseException):
    """The user or the system asked this process to end.

    Attributes:
      signal_number: which signal asked; the exit status is 128 more.
    """

    def __init__(self, signal_number: int, message: str = "interrupted"):
        """Says what was saved in `message`, one line."""
        super().__init__(message)
        self.signal_number = signal_number


class Interrupts:
    """What becomes of SIGINT and SIGTERM.

    Attributes:
      requested: the signal that came, or None.
    """

    def __init__(self):
        """Waits for the first signal."""
        self.requested: int | None = None
        self._since = 0.0

    @contextlib.contextmanager
    def raised(self) -> Iterator[None]:
        """Within the block the signals raise `Interrupted`."""
        hook, sys.unraisablehook = sys.unraisablehook, self._raise_again
        try:
            with _handler(self._raise):
                yield
        finally:
            sys.unraisablehook = hook

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        """Within the block a signal only sets `requested`, for `check` to find.

        Whoever asks again later does not want to wait: that ends the process.
        """
        _noting.append(self)
        try:
            with _handler(self._note):
                yield
        finally:
            _noting.remove(self)

    def _raise(self, number: int, frame: object) -> None:
        if self._is_new(number):
            raise Interrupted(number)

    def _raise_again(self, lost: Any) -> None:
        """Python only reports what is raised in the callbacks of its collector."""
        if isinstance(lost.exc_value, Interrupted):
            self.requested = None
            signal_itself = [os.getpid(), lost.exc_value.signal_number]
            threading.Timer(0.05, os.kill, signal_itself).start()
        else:
            sys.__unraisablehook__(lost)

    def _note(self, number: int, frame: object) -> None:
        again = self.requested
        if self._is_new(number) and again:
            raise SystemExit(128 + number)

    def _is_new(self, number: int) -> bool:
        now = time.monotonic()
        new = not self.requested or now - self._since > _SAME_REQUEST
        if new:
            self.requested, self._since = number, now
        return new


_noting: list[Interrupts] = []


def requested() -> int | None:
    """The signal that somebody who notes signals has got, None if there is none."""
    return next((one.requested for one in _noting if one.requested), None)


def request(number: int) -> None:
    """Notes a signal, for whoever notes them, as if it had come here."""
    for one in _noting:
        one.requested = one.requested or number


def check() -> None:
    """Raises `Interrupted` if a signal has been noted."""
    if number := requested():
        raise Interrupted(number)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Signals that come within the block take effect at its end.

    For what must not be left by an exception from outside: imports of C extensions,
    some of which then crash, and libraries that leave threads at work.
    """
    received: list[int] = []
    with _handler(lambda number, frame: received.append(number)):
        yield
    for number in received[:1]:
        signal.raise_signal(number)


@contextlib.contextmanager
def _handler(handle: Callable[[int, object], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread gets signals
        return
    before = {number: signal.signal(number, handle) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
