"""Weights of another run to start from: `--init_from=RUN`."""

import hashlib
import pathlib
from typing import Any

from emnist_jax.cli.console import say
from emnist_jax.cli.errors import UserError
from emnist_jax.runs import load_run
from emnist_jax.storage.arrays import format_size

# Settings that a part must share with the run that starts from it.
_SHARED = {
    "encoder": ("latent_dim", "latent_activation"),
    "decoder": ("latent_dim", "decoder"),
}


def initial_weights(
    init_from: str | None, freeze: str, architecture: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, str]]:
    """The parameters that `--init_from` names, and what tells them from others.

    Args:
      init_from: folder of the run whose weights to start from.
      freeze: 'none', or the part that the folder must hold.
      architecture: of the new run, as `compose.architecture` gives it.

    Returns:
      Parameters by part, of the parts that the folder holds, its decoder only if the
      new run has the same; and their SHA-256, for the facts that a resumed run must
      share. Both are empty without --init_from.

    Raises:
      UserError: there is no such part, it is damaged or of another architecture.
    """
    if init_from is None:
        return {}, {}
    run, flag = load_run(init_from, flag="--init_from"), f"--init_from={init_from}"
    if freeze not in ("none", *run.parts):
        raise UserError(f"--freeze={freeze}: {flag} holds no {freeze}/")
    params, digest = {}, hashlib.sha256()
    for part in run.parts:
        about = run.about(part)
        ours = architecture["decoder"]
        if part == "decoder" != freeze and about.get(part) != ours:
            say(f"{flag}: its encoder alone; decoder {ours} starts anew")
            continue
        for name in _SHARED[part]:
            theirs, ours = about.get(name), architecture[name]
            if theirs != ours:
                raise UserError(
                    f"{flag}: its {part} has {name} {theirs!r}, not {ours!r}; give "
                    f"--{name}={theirs}"
                )
        module, params[part] = getattr(run, part)
        if module.image_size != architecture["image_size"]:
            raise UserError(
                f"{flag}: its {part} is of {format_size(module.image_size)} pixels, "
                f"but the images have {format_size(architecture['image_size'])}"
            )
        digest.update(_manifest(run.path / part))
    return params, {"initial_weights_sha256": digest.hexdigest()}


def _manifest(part: pathlib.Path) -> bytes:
    """The digests of a checkpoint's files, which `verify` has compared with them."""
    return (part / "manifest.json").read_bytes()
