"""The layout of every `--help`: wrapped at words to the width of the terminal."""

import shutil
import textwrap

INDENT = 30  # columns, before what a flag does


def text_width() -> int:
    """Columns that a help may use."""
    return min(shutil.get_terminal_size().columns, 100) - 2


def wrapped(text: str, width: int) -> str:
    """Paragraphs of at most `width` columns; indented ones, examples, stay."""
    return "\n\n".join(
        part.rstrip()
        if part.startswith(" ")
        else textwrap.fill(part, width, break_long_words=False, break_on_hyphens=False)
        for part in text.strip("\n").split("\n\n")
    )


def with_default(help: str, default: object, *notes: str) -> str:
    """The help, and in brackets its default, unless it names that, and notes."""
    if "[default: " not in help:
        several = isinstance(default, list | tuple)
        shown = ",".join(map(str, default)) if several else default
        notes = (f"default: {'none' if shown in (None, '') else shown}", *notes)
    return f"{help} [{'; '.join(notes)}]" if notes else help
