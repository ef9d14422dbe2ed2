"""Ctrl-C and SIGTERM: obeyed at once, or after the work in hand is saved."""

import contextlib
import signal
import time
from collections.abc import Iterator

_PATIENCE = 1.0  # seconds; `timeout` and others send the same signal twice at once


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
    """Turns SIGINT and SIGTERM into `Interrupted`, or into a request to stop."""

    def __init__(self):
        """Starts outside of any deferred block."""
        self.requested: int | None = None
        self._since = 0.0
        self._deferred = False

    @contextlib.contextmanager
    def handled(self) -> Iterator[None]:
        """Within the block the signals raise `Interrupted`."""
        signals = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self._handle) for number in signals}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Within the block a signal only sets `requested`; the end of it raises.

        Whoever asks again later does not want to wait: that ends the process.
        """
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False
        if self.requested:
            raise Interrupted(self.requested)

    def request(self, number: int) -> None:
        """Asks a deferred block to end as if the signal had come here."""
        self.requested = self.requested or number

    def _handle(self, number: int, frame: object) -> None:
        del frame
        first = not self.requested
        if first:
            self.requested, self._since = number, time.monotonic()
        again = not first and time.monotonic() - self._since > _PATIENCE
        if again and self._deferred:
            raise SystemExit(128 + number)
        if again or (first and not self._deferred):
            raise Interrupted(number)
