"""The folder name that a run's settings give it."""

import dataclasses
import hashlib
from typing import Any

from emnist_jax.config.presets import PRESETS

_LONGEST = 100  # characters
_ALWAYS = ("dataset", "decoder", "preset", "seed")


def folder_name(config: Any) -> str:
    """`<dataset>-<decoder>-<preset>-seed<seed>`, then every setting off its preset.

    So a sweep over any setting gets a folder a value.

    Args:
      config: a `Config`.

    Returns:
      At most 100 characters, the end of a longer name replaced by its digest.
    """
    dataset = config.dataset.replace("/", "-")
    name = f"{dataset}-{config.decoder}-{config.preset}-seed{config.seed}"
    for field in dataclasses.fields(config):
        value, usual = getattr(config, field.name), PRESETS[config.preset]
        if field.name in _ALWAYS or not field.metadata["shapes_result"]:
            continue
        if value != usual.get(field.name, field.default):
            shown = f"{value:g}" if isinstance(value, float) else str(value)
            name += f"-{field.name}{'_' * isinstance(value, str)}{shown}"
    if len(name) <= _LONGEST:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name[: _LONGEST - 9]}-{digest}"
