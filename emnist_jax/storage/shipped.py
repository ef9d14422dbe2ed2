"""Trained weights that come with the package: `--run=pretrained/model02`.

Each is a run folder in `models/weights/`, without its log and latents, its parameters
rounded to float16. `results.json` holds recipe, seed, versions, machine and figures;
`models/weights/README.md` is the model card.
"""

import os
import pathlib
from typing import Any

from emnist_jax.cli.errors import UserError
from emnist_jax.storage import files, paths

_HOME = pathlib.Path(__file__).parents[1] / "models" / "weights"
_PREFIX = "pretrained/"


def names() -> list[str]:
    """What there is, e.g. `['pretrained/model02']`."""
    return sorted(f"{_PREFIX}{path.parent.name}" for path in _HOME.glob("*/encoder"))


def holds(path: pathlib.Path) -> bool:
    """Whether a run folder is one of these."""
    return path.resolve().parent == _HOME.resolve()


def folder_of(path: str | os.PathLike, flag: str = "path") -> pathlib.Path:
    """The folder of a run: a shipped one's for `pretrained/NAME`, else `path` itself.

    Raises:
      UserError: nothing of that name is shipped.
    """
    name = os.fspath(path)
    if not isinstance(name, str) or not name.startswith(_PREFIX):
        return pathlib.Path(path)
    if name not in names():
        known = ", ".join(names()) or "none so far"
        raise UserError(
            f"{flag}={name}: no such weights come with the package; there are {known}; "
            f"a folder of yours by that name is ./{name}"
        )
    return _HOME / name.removeprefix(_PREFIX)


def _without_places(record: Any) -> Any:
    """A JSON value in which absolute paths of this machine are names of files."""
    if isinstance(record, dict):
        return {name: _without_places(value) for name, value in record.items()}
    if isinstance(record, list):
        return [_without_places(value) for value in record]
    if isinstance(record, str) and os.path.isabs(record):
        return os.path.basename(record)
    return record


def pack(run: Any, name: str, home: pathlib.Path = _HOME) -> pathlib.Path:
    """Makes shipped weights of a finished run.

    Args:
      run: a `Run`, its settings and results complete.
      name: of the new folder in `home`.
      home: where shipped weights lie.

    Returns:
      The folder.

    Raises:
      UserError: it is there already, or a parameter does not fit into float16.
    """
    import jax  # a name is looked up without it
    import numpy as np

    from emnist_jax.storage import checkpoints

    with files.write_folder(home / name) as folder:
        folder.mkdir(exist_ok=True)
        for part in ("encoder", "decoder"):
            params = jax.tree.map(np.float16, getattr(run, part)[1])
            if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params)):
                raise UserError(f"{run.path}: {part}: does not fit into float16")
            about = run.about(part)
            checkpoints.save(folder / part, params, about)
        for record in ("config.json", "results.json"):
            found = files.read_json(paths.inside(run.path, record))
            files.write_json(folder / record, _without_places(found))
    return home / name
