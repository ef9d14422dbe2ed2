"""Trains, evaluates and exports one autoencoder.

  python launch.py --decoder=model03                   # EMNIST, else glyphs
  python launch.py --decoder=model03 --dataset=glyphs  # the built-in data set

Everything goes into runs/<dataset>-<decoder>-<preset>-seed<seed>/; the same command
again resumes there.
"""

from emnist_jax.__main__ import train
from emnist_jax.cli.command import run_command


def main() -> None:
    """Builds the config from the flags and runs the main job."""
    train(usage=(__doc__ or "").strip())


if __name__ == "__main__":
    run_command(main)
