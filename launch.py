"""Trains, evaluates and exports one autoencoder.

  python launch.py --decoder=model03                   # EMNIST-Balanced, or glyphs
  python launch.py --decoder=model03 --dataset=glyphs  # the built-in data set

Everything goes into runs/<dataset>-<decoder>-<preset>-seed<seed>/; the same command
again resumes there.
"""

import sys

from emnist_jax.cli.command import run_command
from emnist_jax.cli.flags import parse_config
from emnist_jax.cli.interrupts import uninterrupted


def main() -> None:
    """Builds the config from the flags and runs the main job."""
    config = parse_config(sys.argv, usage=(__doc__ or "").strip())
    with uninterrupted():
        from emnist_jax.train import train_and_evaluate  # JAX loads after --help

    train_and_evaluate(config)


if __name__ == "__main__":
    run_command(main)
