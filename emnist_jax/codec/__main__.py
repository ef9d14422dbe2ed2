"""Compresses images into a file of a documented format, and back.

  emnist-jax codec compress IMAGES.npy FILE.ejx
  emnist-jax codec decompress FILE.ejx IMAGES.npy

`emnist-jax codec COMMAND --help` tells more.
"""

from collections.abc import Callable

from emnist_jax.cli.arguments import Parser
from emnist_jax.cli.command import run_command
from emnist_jax.cli.errors import UserError
from emnist_jax.codec import container, inputs, latent_coding, model_file
from emnist_jax.codec.commands import read
from emnist_jax.codec.commands.compress import compress
from emnist_jax.codec.integer_form import PixelModelConfig


def train(arguments) -> None:
    """Trains a pixel model and writes a model file."""
    from emnist_jax.codec.commands import train  # loads an optimiser

    train.train(arguments)


SIZES = (
    ("width", "units of a hidden layer"),
    ("blocks", "residual layers"),
    ("fine_width", "units between bin and value"),
    ("gate_width", "units of the gate"),
)


FILE = "the compressed file, a folder of them or a zarr array; - is standard input"


def _parser() -> Parser:
    parser = Parser(__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for function, add_arguments in (
        (compress, _compress_arguments),
        (read.decompress, _decompress_arguments),
        (
            read.info,
            lambda add: add("file", help="the compressed file; - is standard input"),
        ),
        (read.verify, _verify_arguments),
        (read.join, _join_arguments),
        (train, _train_arguments),
    ):
        name, what = function.__name__, function.__doc__
        command = commands.add_parser(name, help=what, description=what)
        command.set_defaults(function=function)
        add_arguments(command.add_argument)
    return parser


def _run_flag(add: Callable) -> None:
    add("--run", help="run folder of the autoencoder, for latent files")


def _compress_arguments(add: Callable) -> None:
    add("images", help=inputs.IMAGES)
    add(
        "out",
        help="the compressed file (.ejx; - is standard output) or zarr array (.zarr)",
    )
    add("--mode", default="lossless", help=", ".join(container.MODES))
    add("--max_error", type=int, default=0, help="near-lossless: largest pixel error")
    help = "lossy, latent: mean squared error to reach, of white 1"
    add("--mse", type=float, help=help)
    add("--bytes", type=float, help="lossy, latent: bytes an image to reach instead")
    names = ", ".join(model_file.NAMES)
    add("--model", help=f"{names} or a model file [default: by mode and --max_error]")
    add("--embed_model", action="store_true", help="put the model into the file")
    _run_flag(add)
    help = "latent: how fine they are cut, 1 to 8 [default: 8, or by --mse or --bytes]"
    add("--bits", type=int, help=help)
    help = "latent: steps of a search for better latents; 0 is fastest"
    add("--refine", type=int, default=latent_coding.REFINE, help=help)
    help = "images a block, at most [default: 16, or 1,024 where bzip2 is better]"
    add("--block_images", type=int, help=help)
    add("--keep", action="store_true", help="keep labels and names of the images")
    add("--estimate", action="store_true", help="say time and size, write nothing")
    add(
        "--train",
        action="store_true",
        help="train a model for these images and embed it, if that pays",
    )
    add("--minutes", type=float, default=3.0, help="length of that training")
    inputs.add_flags(add)


def _decompress_arguments(add: Callable) -> None:
    add("file", help=FILE)
    add("out", help=".npy, .npz, or pictures: .zip, FOLDER/; - is .npy to output")
    add("--index", type=int, help="decode this image alone [default: all]")
    add("--range", help="decode images FIRST:END [default: all]")
    add("--model", help="model file, if neither shipped nor embedded")
    _run_flag(add)


def _verify_arguments(add: Callable) -> None:
    add("file", help=FILE)
    add("images", nargs="?", help="what it should hold")
    add("--model", help="model file, if neither shipped nor embedded")
    _run_flag(add)
    inputs.add_flags(add)


def _join_arguments(add: Callable) -> None:
    add(
        "files",
        nargs="+",
        action="store",
        help="files to join, and last the file to write",
    )


def _train_arguments(add: Callable) -> None:
    sizes = PixelModelConfig()
    add("images", help=inputs.IMAGES)
    add("out", help="the model file to write")
    add("--minutes", type=float, default=60.0, help="length of the training")
    add("--steps", type=int, default=0, help="its length in steps instead")
    for name, what in SIZES:
        add(f"--{name}", type=int, default=getattr(sizes, name), help=what)
    add("--batch_size", type=int, default=4096, help="pixels a step")
    add("--learning_rate", type=float, default=0.011, help="highest learning rate")
    add("--seed", type=int, default=0, help="of parameters, order and held-out images")
    add("--max_error", type=int, default=0, help="near-lossless bound to train for")
    add("--start", help="model to begin with, of the same sizes or smaller")
    add("--folder", help="for checkpoints [default: OUT.training]")
    inputs.add_flags(add, "split")


def main() -> None:
    """Runs the command that the arguments name."""
    arguments = _parser().parse_args()
    try:
        arguments.function(arguments)
    except UserError as error:
        flag = hasattr(arguments, str(error).partition("=")[0])
        raise UserError(f"--{error}" if flag else str(error)) from error


if __name__ == "__main__":
    run_command(main)
