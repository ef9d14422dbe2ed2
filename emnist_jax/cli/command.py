"""How every command begins and ends."""

import errno
import os
import signal
import sys
from collections.abc import Callable

from emnist_jax import cpu
from emnist_jax.cli import backend
from emnist_jax.cli.errors import UserError
from emnist_jax.cli.interrupts import Interrupted, Interrupts

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def run_command(main: Callable[[], int | None]) -> None:
    """Runs a command's main function and exits with its status.

    A `UserError` becomes one line on stderr and exit status 2; Ctrl-C exits
    with 130, SIGTERM with 143, both after cleaning up. Anything else is a defect of
    ours and keeps its traceback.

    Args:
      main: the command; returns its exit status (None is 0).
    """
    _open_standard_streams()
    cpu.prepare_process()
    if hasattr(sys.stdout, "reconfigure"):  # to print the name of any file
        sys.stdout.reconfigure(errors="backslashreplace")
    with Interrupts().raised():
        try:
            status = _explained(main) or 0
            if sys.stdout:
                sys.stdout.flush()
        except UserError as error:
            _report(f"error: {' '.join(str(error).split())}")
            status = 2
        except Interrupted as interruption:
            _report(str(interruption))
            status = 128 + interruption.signal_number
        except BrokenPipeError:  # the reader of our output went away
            status = 128 + signal.SIGPIPE
            sys.stderr.close()
        except OSError as error:
            if error.errno not in _DISK_FULL:
                raise
            _report(f"error: {error.strerror}; make room and call again")
            sys.stdout = None  # Python would complain again about what is left in it
            status = 2
    sys.exit(status)


def _explained(main: Callable[[], int | None]) -> int | None:
    """Runs `main`; a JAX that cannot start becomes an error that says why."""
    try:
        return main()
    except (RuntimeError, AssertionError):
        if "jax" in sys.modules:
            backend.start()  # raises if that was it
        raise


def _open_standard_streams() -> None:
    """Leads closed standard streams to nowhere.

    Otherwise the next file opened would get their number, and what libraries print
    would be written into it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
            setattr(sys, name, open(number, "w" if number else "r"))


def _report(line: str) -> None:
    from tqdm import tqdm  # a progress bar that is still there makes room

    tqdm.write(line, file=sys.stderr)
