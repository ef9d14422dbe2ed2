"""The console command: `emnist-jax COMMAND ...`, also `python -m emnist_jax`."""

import importlib
import importlib.util
import pathlib
import sys

from emnist_jax import __version__
from emnist_jax.cli.command import run_command
from emnist_jax.cli.errors import UserError

# Command -> the module whose `main` it is, and what it does.
COMMANDS = {
    "train": ("emnist_jax.__main__", "train, evaluate and export one autoencoder"),
    "evaluate": ("emnist_jax.evaluate", "measure a run again"),
    "latents": ("emnist_jax.latents", "encode images to latents, or decode latents"),
    "codec": ("emnist_jax.codec.__main__", "compress images into a file, and back"),
    "bulk": ("emnist_jax.bulk.__main__", "the same for many files, also on a cluster"),
    "export": ("emnist_jax.runs.export", "write a run as StableHLO or ONNX"),
    "explore": ("emnist_jax.explore.__main__", "make a page to play with a run"),
    "results": ("emnist_jax.runs.compare", "compare runs in one table"),
    "report": ("experiments.report", "make one page of a study (in a checkout)"),
    "import": ("emnist_jax.runs.import_keras", "make a run of published Keras weights"),
}
USAGE = """Trains, evaluates and exports one autoencoder.

  emnist-jax train --decoder=model03                   # EMNIST, else glyphs
  emnist-jax train --decoder=model03 --dataset=glyphs  # the built-in data set

Everything goes into runs/<dataset>-<decoder>-<preset>-seed<seed>/; the same command
again resumes there."""


def train(usage: str = USAGE) -> None:
    """Builds the config from the flags and runs the main job."""
    from emnist_jax.cli.flags import parse_config
    from emnist_jax.cli.interrupts import uninterrupted

    config = parse_config(sys.argv, usage=usage)
    with uninterrupted():
        from emnist_jax.train import train_and_evaluate  # JAX loads after --help

    train_and_evaluate(config)


def main() -> None:
    """Runs the command that the arguments name."""
    run_command(_dispatch)


def _dispatch() -> int | None:
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help", "--helpfull"):
        print(f"Learned compression of small grayscale images, {__version__}.\n")
        print("usage: emnist-jax COMMAND ...; emnist-jax COMMAND --help tells more\n")
        for command, (_, text) in COMMANDS.items():
            print(f"  {command:<12}{text}")
        return None
    if name == "--version":
        print(f"emnist_jax {__version__}")
        return None
    if name not in COMMANDS:
        raise UserError(f"{name}: no such command; there are {', '.join(COMMANDS)}")
    sys.argv = [f"emnist-jax {name}", *arguments]
    if name == "train":
        return train()
    module = COMMANDS[name][0]
    if module.startswith("experiments."):  # which are not installed
        sys.path.append(str(pathlib.Path(__file__).parents[1]))
        if importlib.util.find_spec("experiments") is None:
            raise UserError(f"{name}: needs a checkout: experiments/ is not installed")
    return importlib.import_module(module).main()


if __name__ == "__main__":
    main()
