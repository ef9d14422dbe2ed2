"""absl flags of `launch.py`: one a field of `Config`, and a help that reads well."""

import dataclasses
import sys
import textwrap
from collections.abc import Sequence
from typing import Any

from absl import flags

from emnist_jax.cli.errors import UserError
from emnist_jax.cli.layout import INDENT, text_width, with_default, wrapped
from emnist_jax.config import PRESETS, Config, make_config
from emnist_jax.config.setting import base_type

_DEFINE = {
    str: flags.DEFINE_string,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    bool: flags.DEFINE_boolean,
}


class _Parser(flags.ArgumentParser):
    """Refuses a value by saying what would be right."""

    def __init__(self, parser: flags.ArgumentParser, kind: type):
        """Wraps absl's `parser` of values of `kind`."""
        self._parser = parser
        self._kind = kind

    def parse(self, argument: str) -> Any:
        """The value of the flag that is given as `argument`."""
        if argument == "":
            raise ValueError("must not be empty")
        try:
            argument.encode()
        except UnicodeEncodeError as error:  # Orbax takes no folder of such a name
            raise ValueError("must be UTF-8") from error
        try:
            return self._parser.parse(argument)
        except (ValueError, TypeError) as error:
            nouns = {int: "a whole number", float: "a number", bool: "true or false"}
            raise ValueError(f"must be {nouns[self._kind]}") from error


def parse_config(argv: Sequence[str], usage: str) -> Config:
    """The config that the command line asks for.

    Args:
      argv: command and arguments, as `sys.argv`.
      usage: what the command does, shown above its flags by `--help`.

    Raises:
      UserError: a flag is unknown, malformed or out of range.
    """
    if any(argument in ("--help", "-h", "-help") for argument in argv[1:]):
        print(_config_help(usage))
        sys.exit(0)
    fields = dataclasses.fields(Config)
    values = flags.FlagValues()
    for field in fields:
        kind, help = base_type(field), field.metadata["help"]
        _DEFINE[kind](field.name, None, help, flag_values=values)
        values[field.name].parser = _Parser(values[field.name].parser, kind)
    try:
        extra = values(list(argv))[1:]
    except flags.Error as error:
        message = str(error).removeprefix("flag ")
        raise UserError(f"{message} (see --help)") from error
    if extra:
        raise UserError(f"argument {extra[0]!r} is not a flag; flags are --name=value")
    given = {f.name: getattr(values, f.name) for f in fields}
    return make_config(**{k: v for k, v in given.items() if v is not None})


def _config_help(usage: str) -> str:
    width = text_width()
    parts = [wrapped(usage, width)]
    groups: dict[str, list[str]] = {}
    for field in dataclasses.fields(Config):
        flag = f"--[no]{field.name}" if base_type(field) is bool else f"--{field.name}"
        row = _row(flag, wrapped(_described(field), width - INDENT))
        groups.setdefault(field.metadata["group"], []).append(row)
    parts += [f"{group}:\n" + "\n".join(rows) for group, rows in groups.items()]
    return "\n\n".join(parts)


def _described(field: dataclasses.Field) -> str:
    default, notes = field.default, []
    if isinstance(default, bool):
        default = "on" if default else "off"
    elif default is not None and (choices := field.metadata["choices"]):
        notes.append(f"or {', '.join(x for x in choices if x != default)}")
    if (published := PRESETS["published"].get(field.name)) is not None:
        notes.append(f"published: {published}")
    return with_default(field.metadata["help"], default, *notes)


def _row(flag: str, text: str) -> str:
    head = f"  {flag:<{INDENT - 3}} "
    rest = textwrap.indent(text, INDENT * " ")
    return head + rest.lstrip() if len(head) == INDENT else f"{head}\n{rest}"
