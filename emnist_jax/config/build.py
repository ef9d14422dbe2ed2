"""Configs from a few settings, and from what is stored of a run."""

import contextlib
import dataclasses
from typing import Any

from emnist_jax.cli.errors import UserError
from emnist_jax.config.presets import PRESETS
from emnist_jax.config.settings import Config
from emnist_jax.storage import files, shipped

OPERATIONAL = frozenset(
    f.name for f in dataclasses.fields(Config) if not f.metadata["shapes_result"]
)


def make_config(**settings: Any) -> Config:
    """The preset's config with `settings` on top of it.

    Args:
      **settings: fields of `Config`; `preset` chooses what the others override, and
        `init_from` gives the architecture where the others do not.

    Raises:
      UserError: a field is unknown or its value not allowed.
    """
    known = {field.name for field in dataclasses.fields(Config)}
    if unknown := settings.keys() - known:
        raise UserError(f"unknown setting {min(unknown)!r}; known: {sorted(known)}")
    preset = Config(preset=settings.get("preset", "best")).preset
    inherited = _architecture(settings.get("init_from"))
    return Config(**{**PRESETS[preset], **inherited, **settings})


def _architecture(run: str | None) -> dict[str, Any]:
    """What the halves in a run's folder say of themselves; {} where they cannot."""
    found = {}
    for part in ("encoder", "decoder") if run else ():
        with contextlib.suppress(UserError):  # said when the weights are loaded
            about = files.read_json(shipped.folder_of(run) / part / "metadata.json")
            names = ("decoder", "latent_dim", "latent_activation")
            if part == "encoder":
                names = names[1:]
            found |= {name: about[name] for name in names if name in about}
    return found


# Settings of earlier versions, and their only value that means the same today.
_RETIRED = {"weight_averaging": 0.0, "weight_decay": 0.0}


def stored_config(settings: dict[str, Any]) -> Config:
    """The config of a run that may be of an earlier version.

    Args:
      settings: as stored in its `config.json`.

    Raises:
      UserError: as `make_config`.
    """
    kept = {name: v for name, v in settings.items() if name not in _RETIRED}
    return make_config(**kept)


def shaping_differences(ours: dict, theirs: dict) -> dict[str, tuple[Any, Any]]:
    """Fields that shape the result and differ between two configs as dicts.

    Args:
      ours: `dataclasses.asdict` of a config.
      theirs: the same, perhaps of another version of this program.

    Returns:
      (our value, their value) by field name; a field that one lacks is None there.
    """
    # What a version does not know is as it was before there was such a setting.
    unsaid = {f.name: f.default for f in dataclasses.fields(Config)} | _RETIRED
    pairs = {
        name: tuple(x.get(name, unsaid.get(name)) for x in (ours, theirs))
        for name in sorted((ours.keys() | theirs.keys()) - OPERATIONAL)
    }
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
