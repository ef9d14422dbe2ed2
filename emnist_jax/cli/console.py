"""What commands print: lines, warnings and progress bars that make room for them."""

import contextlib
import sys
from typing import Any

from tqdm import tqdm

_state = {"quiet": False}


def be_quiet() -> None:
    """Nothing but warnings from now on: another process does the talking."""
    _state["quiet"] = True


def say(text: str = "") -> None:
    """Prints a line, above a progress bar that is there."""
    if not _state["quiet"] and sys.stdout:
        tqdm.write(text)
        sys.stdout.flush()


def warn(text: str) -> None:
    """Prints a warning to standard error, if it is open."""
    if sys.stderr:
        with contextlib.suppress(OSError):
            tqdm.write(f"warning: {text}", file=sys.stderr)


def bar(total: int | None, what: str | None, unit: str, **options: Any) -> tqdm:
    """A progress bar that leaves nothing behind; none where nobody could see it.

    Args:
      total: how many units there are.
      what: its name; None for no bar.
      unit: what is counted, e.g. 'images'.
      **options: others of tqdm.
    """
    hidden = what is None or _state["quiet"] or not sys.stderr
    return tqdm(
        total=total,
        desc=what,
        unit=f" {unit}",
        leave=False,
        disable=True if hidden else None,  # None: not where there is no terminal
        **options,
    )


def format_duration(seconds: float) -> str:
    """Seconds as people say them, e.g. '8 min' or '2 h 05 min'."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return (
        f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"
    )
