"""A setting: a dataclass field that knows its flag's help, group and allowed values."""

import dataclasses
import re
from typing import Any

from emnist_jax.cli.errors import UserError


def setting(
    default: Any,
    help: str,
    *,
    group: str,
    choices: tuple[str, ...] | None = None,
    low: float | None = None,
    high: float = 2**31 - 1,
    shapes_result: bool = True,
) -> Any:
    """A field with what its flag needs: help, group and the range of its values."""
    metadata = dict(
        help=help,
        group=group,
        choices=choices,
        low=low,
        high=high,
        shapes_result=shapes_result,
    )
    return dataclasses.field(default=default, metadata=metadata)


def base_type(field: dataclasses.Field) -> type:
    """The field's type without `| None`."""
    return {str(t.__name__): t for t in (str, int, float, bool)}[
        getattr(field.type, "__name__", str(field.type)).split(" | ")[0]
    ]


def check(field: dataclasses.Field, value: Any) -> None:
    """Checks a value against its field.

    Raises:
      UserError: it is of the wrong type, not finite, out of range or no choice.
    """
    shown = value if isinstance(value, str) else repr(value)
    flag = f"--{field.name}={shown}"
    low, high = field.metadata["low"], field.metadata["high"]
    choices = field.metadata["choices"]
    if value is None and field.default is None:
        return
    kind = base_type(field)
    allowed = (int, float) if kind is float else kind
    if not isinstance(value, allowed) or (isinstance(value, bool) and kind is not bool):
        raise UserError(f"{flag}: must be of type {kind.__name__}")
    if choices and value not in choices:
        raise UserError(f"{flag}: must be one of {', '.join(choices)}")
    if low is not None and not low <= value <= high:  # nor is NaN
        number = "a whole number" if kind is int else "a number"
        raise UserError(f"{flag}: must be {number} from {low} to {high}")


def check_processes(config: Any) -> None:
    """Checks the settings of several processes against each other.

    Raises:
      UserError: only some of them are given, or one is impossible.
    """
    names = ("coordinator_address", "num_processes", "process_id")
    given = [name for name in names if getattr(config, name) is not None]
    if not given:
        return
    flag = f"--{given[0]}={getattr(config, given[0])}"
    if not config.distributed:
        raise UserError(f"{flag}: needs --distributed")
    if len(given) < len(names):
        missing = next(name for name in names if name not in given)
        raise UserError(f"{flag}: needs --{missing} too")
    if config.process_id >= config.num_processes:
        raise UserError(
            f"--process_id={config.process_id}: must be under --num_processes="
            f"{config.num_processes}"
        )
    address = r"(\[[\da-f:]+\]|[^\s:]+):(\d+)"
    match = re.fullmatch(address, config.coordinator_address, re.I)
    if not match or not 0 < int(match[2]) < 2**16:
        raise UserError(f"{flag}: must be HOST:PORT")
