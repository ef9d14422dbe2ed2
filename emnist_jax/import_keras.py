"""Keras weights of the published study as a run that every command takes.

  python -m emnist_jax.import_keras --encoder=E.keras --decoder=D.keras --out=RUN
  python -m emnist_jax.evaluate --run=RUN --dataset=emnist/balanced

Needs h5py (extra `[keras]`), but neither Keras nor TensorFlow. The files decide
length and activation of the latents, and which of the four decoders it is.
"""

import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from emnist_jax import checkpoints, files, results
from emnist_jax.cli.arguments import Parser
from emnist_jax.config import Config, make_config
from emnist_jax.errors import UserError, run_command
from emnist_jax.models.table import describe
from emnist_jax.runs import Run, save_model


def import_keras(
    encoder: str | os.PathLike, decoder: str | os.PathLike, out: str | os.PathLike
) -> Run:
    """Writes a run folder from two `.keras` files; it appears when it is complete.

    Args:
      encoder: the encoder's file.
      decoder: the decoder's file.
      out: the run's folder, new or empty, or an earlier import of the same files,
        which is left as it is.

    Returns:
      The run. Its config is that of the preset 'published', without a data set.

    Raises:
      UserError: a file is not of this architecture, damaged or unreadable, the
        halves do not fit each other, or `out` holds something else.
    """
    try:
        from emnist_jax import keras_files
    except ModuleNotFoundError as error:
        if error.name != "h5py":
            raise
        raise UserError(
            "reading .keras files needs h5py: pip install 'emnist-jax[keras]'"
        ) from error
    first = keras_files.read(encoder, "encoder")
    second = keras_files.read(decoder, "decoder")
    gives, takes = first.settings["latent_dim"], second.settings["latent_dim"]
    if gives != takes:
        raise UserError(
            f"--decoder={decoder}: takes {takes} latents, but --encoder={encoder} "
            f"gives {gives}; name two halves of one model"
        )
    config = make_config(preset="published", **(first.settings | second.settings))
    origin = {"format": "keras", "encoder": first.origin, "decoder": second.origin}
    run = Run(out)
    if not _is_imported(run.path, origin):
        params = {"encoder": first.params, "decoder": second.params}
        with files.write_atomically(run.path) as folder:
            folder.mkdir()
            save_model(Run(folder), params, config)
            settings = {"config": dataclasses.asdict(config), "data": {}}
            files.write_json(folder / "config.json", {**settings, "origin": origin})
            record = _describe(run.path.name, config, origin)
            files.write_json(folder / "results.json", record)
    return run


def _is_imported(path: pathlib.Path, origin: dict) -> bool:
    """Whether this very import lies there; anything else there is an error."""
    try:
        if not path.exists() or not any(path.iterdir()):
            return False
    except OSError as error:
        raise UserError(f"--out={path}: {error.strerror}; name a new folder") from error
    config = path / "config.json"
    if not config.exists() or files.read_json(config).get("origin") != origin:
        raise UserError(f"--out={path}: holds something else; name a new folder")
    for part in ("encoder", "decoder"):
        checkpoints.verify(path / part)
    return True


def _describe(name: str, config: Config, origin: dict) -> dict[str, Any]:
    return {
        "schema": results.SCHEMA,
        "name": name,
        "status": "imported",
        "origin": origin,
        "dataset": None,  # until it is evaluated
        "config": dataclasses.asdict(config),
        "model": describe(config.decoder, config.latent_dim),
        "environment": results.environment(),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command of the module's docstring."""
    parser = Parser(__doc__)
    parser.add_argument("--encoder", required=True, help="the encoder's .keras file")
    parser.add_argument("--decoder", required=True, help="the decoder's .keras file")
    parser.add_argument("--out", required=True, help="the run's folder, new or empty")
    flags = parser.parse_args(argv)
    run = import_keras(flags.encoder, flags.decoder, flags.out)
    record = results.load_results(run.path)
    print(
        f"{run.path}: {run.config['decoder']}, {run.config['latent_dim']} "
        f"{run.config['latent_activation']} latents, "
        f"{record['model']['parameters']['total']:,} parameters, saved by Keras "
        f"{record['origin']['decoder']['keras_version']}"
    )
    print(
        f"measure it: python -m emnist_jax.evaluate --run={run.path} "
        "--dataset=emnist/balanced"
    )


if __name__ == "__main__":
    run_command(main)
