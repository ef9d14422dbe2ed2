"""Arguments of the small commands: argparse, whose errors are one clear line."""

import argparse
import dataclasses
import math
import sys
from collections.abc import Callable, Collection
from typing import Any, NoReturn

from emnist_jax.cli.errors import UserError
from emnist_jax.cli.layout import INDENT, text_width, with_default, wrapped


class Parser(argparse.ArgumentParser):
    """argparse without abbreviations, with defaults in its help.

    `add_argument` takes what argparse takes; a `type` is int, float, or a function of
    the text that raises `UserError`, as those below.
    """

    def __init__(self, description: str | None = None, **options: Any):
        """Takes what the command does (None under `python -OO`), shown as it is."""
        spec = getattr(sys.modules["__main__"], "__spec__", None)
        if sys.argv[0].startswith("emnist-jax "):  # as `emnist_jax.__main__` calls
            options.setdefault("prog", sys.argv[0])
        elif spec is not None:
            name = spec.name.removesuffix(".__main__")
            options.setdefault("prog", f"python -m {name}")
        super().__init__(
            description=(description or "").strip(),
            formatter_class=_Formatter,
            allow_abbrev=False,
            **options,
        )
        self.register("action", None, _Value)

    def format_help(self) -> str:
        """The help; its first line names what must be given."""
        flags = self._get_optional_actions()
        needed = [f"--{a.dest}={a.dest.upper()}" for a in flags if a.required]
        shapes = {"?": "[{}]", "+": "{} ...", argparse.PARSER: "{} ..."}
        for a in self._get_positional_actions():
            needed.append(shapes.get(a.nargs, "{}").format(a.metavar or a.dest))
        more = ["[FLAGS]"] if len(flags) > 1 else []  # than --help
        self.usage = " ".join(["%(prog)s", *needed, *more])
        return super().format_help()

    def error(self, message: str) -> NoReturn:
        """Raises what is wrong with the call as a `UserError`."""
        raise UserError(f"{message} (see --help)")


class _Formatter(argparse.HelpFormatter):
    """Wraps at words, and leaves indented lines of a description as they are."""

    def __init__(self, prog: str):
        """Takes the program's name."""
        super().__init__(prog, max_help_position=INDENT, width=text_width())
        self._action_max_length = 16  # room for the names of commands

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return wrapped(text, width)

    def _split_lines(self, text: str, width: int) -> list[str]:
        return wrapped(text, width).splitlines()

    def _format_action_invocation(self, action: argparse.Action) -> str:
        return ", ".join(action.option_strings) or action.metavar or action.dest


class _Value(argparse.Action):
    """Stores one value, or says what would be right."""

    def __init__(self, *names, type=str, default=None, help="", **options):
        if not options.get("required") and options.get("option_strings", names[:1]):
            help = with_default(help, default)
        super().__init__(
            *names, default=default, help=help.replace("%", "%%"), **options
        )
        self._parse = type

    def __call__(self, parser, namespace, text, option_string=None):
        if text is not None:  # what an optional positional that is not there is
            value = self._value(text, f"{option_string or self.dest}={text}")
            setattr(namespace, self.dest, value)

    def _value(self, text: str, call: str) -> Any:
        if not text:
            raise UserError(f"{call}: must not be empty")
        try:
            text.encode()
        except UnicodeEncodeError as error:  # Orbax takes no folder of such a name
            raise UserError(f"{call}: must be UTF-8") from error
        try:
            value = self._parse(text)
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(text)
        except UserError as error:
            raise UserError(f"{call}: {error}") from error
        except ValueError as error:
            noun = "a number" if self._parse is float else "a whole number"
            raise UserError(f"{call}: must be {noun}") from error
        return value


def reading_flags(add: Callable, *without: str) -> None:
    """Adds the flags of how images are read, as `launch.py` has them.

    Args:
      add: a parser's `add_argument`.
      *without: those of another meaning there.
    """
    for name, field in _reading().items():
        if name in without:
            continue
        options = {"type": int} if name == "resize" else {}
        if field.default is False:
            options["action"] = "store_true"
        add(f"--{name}", help=field.metadata["help"], **options)


def reading_options(flags: argparse.Namespace) -> dict[str, Any]:
    """What `reading_flags` took, for `read_images`."""
    return {name: getattr(flags, name) for name in _reading() if hasattr(flags, name)}


def _reading() -> dict[str, Any]:
    from emnist_jax.config.data_settings import DataSettings  # loads all of config

    fields = dataclasses.fields(DataSettings)
    return {f.name: f for f in fields if f.metadata["group"] == "reading images"}


def count(text: str) -> int:
    """A whole number from 1."""
    if (value := int(text)) < 1:
        raise UserError("must be at least 1")
    return value


def comma_separated(kind: type = str, known: Collection | None = None) -> Callable:
    """A list of values, of which each must be known if it is said which are."""

    def parse(text: str) -> list:
        try:
            values = [kind(part) for part in text.split(",")]
        except ValueError as error:
            raise UserError("must be whole numbers, separated by commas") from error
        for value in values:
            if known is not None and value not in known:
                raise UserError(f"{value!r} is none of {', '.join(map(str, known))}")
            if value == "":
                raise UserError("a comma too many")
        return values

    return parse
