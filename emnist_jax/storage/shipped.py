"""Trained weights that come with the package: `--run=pretrained/model02`.

Each is a run folder in `models/weights/`, without its log and latents, its parameters
rounded to float16. `results.json` is the model card: data, recipe, seed, versions,
machine, figures.
"""

import os
import pathlib
import shutil
from typing import Any

from emnist_jax.cli.errors import UserError
from emnist_jax.storage import files, paths

_HOME = pathlib.Path(__file__).parents[1] / "models" / "weights"
_PREFIX = "pretrained/"


def names() -> list[str]:
    """What there is, e.g. `['pretrained/model02']`."""
    return sorted(f"{_PREFIX}{path.parent.name}" for path in _HOME.glob("*/encoder"))


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
            about = checkpoints.verify(run.path / part)
            checkpoints.save(folder / part, params, about)
        for record in ("config.json", "results.json"):
            shutil.copy(paths.inside(run.path, record), folder)
    return home / name
