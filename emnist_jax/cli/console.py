"""What commands print: lines, warnings and progress bars that make room for them."""

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

from tqdm import tqdm

_state: dict[str, Any] = {"quiet": False, "bar": None}


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
    _state["bar"] = made = tqdm(
        total=total,
        desc=what,
        unit=f" {unit}",
        leave=False,
        disable=True if hidden else None,  # None: not where there is no terminal
        **options,
    )
    return made


@contextlib.contextmanager
def doing(what: str) -> Iterator[None]:
    """The progress bar says so during the block; without one, a line of its own."""
    shown = _state["bar"]
    if shown is None or shown.disable:  # as it is once it is closed
        with bar(0, what, "", bar_format="{desc} ..."):
            yield
        return
    name = shown.desc
    shown.set_description_str(what)
    try:
        yield
    finally:
        shown.set_description_str(name)


def format_duration(seconds: float) -> str:
    """Seconds as people say them, e.g. '8 min' or '2 h 05 min'."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return (
        f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"
    )
