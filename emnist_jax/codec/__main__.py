"""Command line of the codec: `python -m emnist_jax.codec --help`."""

import pathlib
from collections.abc import Callable

import numpy as np

from emnist_jax.cli import console
from emnist_jax.cli.arguments import Parser
from emnist_jax.cli.command import run_command
from emnist_jax.cli.errors import UserError
from emnist_jax.cli.interrupts import Interrupts
from emnist_jax.codec import container, inputs, model_file, reader, writer
from emnist_jax.codec.integer_form import PixelModelConfig
from emnist_jax.storage import paths
from emnist_jax.storage.arrays import save_batches


def _run(path: str | None):
    if path is None:
        return None
    import emnist_jax  # the autoencoder's code is large

    return emnist_jax.load_run(path, flag="--run")


def _open(arguments) -> reader.CompressedImages:
    return reader.open_file(
        arguments.file, model=arguments.model, run=_run(arguments.run)
    )


def compress(arguments) -> None:
    """Compresses images into a file."""
    _check_output(arguments.out, arguments, *inputs.files_of(arguments.images))
    images = inputs.images_of(arguments).images
    with console.bar(len(images), "compressing", "images") as bar:
        writer.compress_file(
            arguments.out,
            images,
            mode=arguments.mode,
            max_error=arguments.max_error,
            model=arguments.model,
            embed_model=arguments.embed_model,
            run=_run(arguments.run),
            bits=arguments.bits,
            block_images=arguments.block_images,
            name=arguments.images,
            report=bar.update,
        )
    size = pathlib.Path(arguments.out).stat().st_size
    print(f"{arguments.out}: {_rate(len(images), images.size, size)}")


def _check_output(out: str | pathlib.Path, arguments, *inputs: pathlib.Path) -> None:
    """Refuses an output that cannot be written, or that is read as well."""
    names = ("emnist_archive", "model", "start")
    paths.check_output(out, *inputs, *(getattr(arguments, n, None) for n in names))


def _rate(images: int, pixels: int, size: int) -> str:
    rate = f", {8 * size / pixels:.4f} bits per pixel" if pixels else ""
    return f"{images} images, {size} bytes{rate}"


def decompress(arguments) -> None:
    """Decompresses a file, an image or a range of images into a .npy file."""
    out = paths.check_output(arguments.out, arguments.file, arguments.model)
    with _open(arguments) as opened:
        start, stop = _chosen(arguments, len(opened))
        with console.bar(stop - start, "decompressing", "images") as bar:
            pieces = opened.pieces(start, stop, bar.update)
            save_batches(out, pieces, (stop - start, *opened.shape[1:]), np.uint8)
    print(f"{arguments.out}: {stop - start} images")


def _chosen(arguments, images: int) -> tuple[int, int]:
    if arguments.index is not None and arguments.range is not None:
        raise UserError(
            f"--index={arguments.index} --range={arguments.range}: give one of them"
        )
    if arguments.index is not None:
        if not 0 <= arguments.index < images:
            raise UserError(
                f"--index={arguments.index} is out of range: the file holds images 0 "
                f"to {images - 1}"
            )
        return arguments.index, arguments.index + 1
    if arguments.range is None:
        return 0, images
    first, colon, last = arguments.range.partition(":")
    try:
        start, stop = int(first or 0), int(last or images)
    except ValueError:
        colon = ""
    if not colon or not 0 <= start <= stop <= images:
        raise UserError(f"--range={arguments.range} is not FIRST:END within 0:{images}")
    return start, stop


def info(arguments) -> None:
    """Prints what a file holds; only its head is read."""
    head, size = reader.read_head(arguments.file)
    kinds = [block.kind for block in head.blocks]
    print(f"mode            {container.MODES[head.mode]}")
    if head.mode != container.LOSSLESS:
        name = "max_error" if head.mode == container.NEAR_LOSSLESS else "bits"
        print(f"{name:15} {head.parameter}")
    print(f"images          {head.images} of {head.height}x{head.width}")
    print(f"model           {head.digest.hex()}, {head.model_length} bytes embedded")
    print(
        f"blocks          {len(kinds)} of at most {head.block_images} images: "
        f"{kinds.count(container.CODED)} coded, "
        f"{kinds.count(container.DEFLATED)} deflated, "
        f"{kinds.count(container.RAW)} raw"
    )
    pixels = head.images * head.height * head.width
    print(f"size            {_rate(head.images, pixels, size)}")


def verify(arguments) -> None:
    """Decodes everything, checks checksums and compares with images if given."""
    with _open(arguments) as opened:
        images = None
        if arguments.images is not None:
            images = inputs.images_of(arguments).images
            if images.shape != opened.shape:
                raise UserError(
                    f"{arguments.file} holds {opened.shape}, {arguments.images} "
                    f"{images.shape}"
                )
        worst, first = 0, 0
        with console.bar(len(opened), "verifying", "images") as bar:
            for piece in opened.pieces(report=bar.update):
                if images is not None:
                    part = images[first : first + len(piece)].astype(np.int16)
                    worst = max(worst, int(np.abs(part - piece).max(initial=0)))
                first += len(piece)
        allowed = opened.head.parameter
        latent = opened.head.mode == container.LATENT
    if images is None:
        print(f"{arguments.file}: all checksums match")
    elif worst > allowed and not latent:
        raise UserError(
            f"{arguments.file} is not {arguments.images}: pixels differ by up to "
            f"{worst}, {allowed} expected"
        )
    else:
        print(f"{arguments.file}: all checksums match, largest difference {worst}")


def train(arguments) -> None:
    """Trains a pixel model and writes a model file."""
    from emnist_jax.codec import fit, integer_form, integer_model, sampler

    folder = arguments.folder or f"{arguments.out}.training"
    _check_output(arguments.out, arguments, *inputs.files_of(arguments.images))
    images = inputs.images_of(arguments, "train").images
    config = fit.PixelTraining(
        model=PixelModelConfig(**{name: getattr(arguments, name) for name, _ in SIZES}),
        minutes=arguments.minutes,
        steps=arguments.steps,
        batch_size=arguments.batch_size,
        learning_rate=arguments.learning_rate,
        max_error=_error(arguments.max_error),
        seed=arguments.seed,
    )
    start = None
    if arguments.start is not None:
        before, _, _ = model_file.load(arguments.start)
        if before.config != config.model:
            raise UserError(f"--start={arguments.start} is of other sizes")
        start = integer_form.dequantise(before.arrays, fit.init_params(config))
    elif config.max_error:
        raise UserError(f"--max_error={config.max_error}: needs --start=MODEL")
    plain = writer.plain_images(images, arguments.images)
    with Interrupts().noted():
        params, figures = fit.fit(
            config,
            *sampler.hold_out_distinct(plain, arguments.seed),
            folder,
            start,
        )
    integers = integer_form.quantise(config.model, params)
    model_file.save(arguments.out, integer_model.IntegerModel(config.model, integers))
    lasted = console.format_duration(60 * figures["minutes"])
    print(
        f"{arguments.out}: {figures['bpp_quantised']:.4f} bits per pixel on held-out "
        f"images ({figures['bpp_float']:.4f} before rounding), after "
        f"{figures['steps']} steps in {lasted}"
    )


def _error(flag: int) -> int:
    if not 0 <= flag <= 127:
        raise UserError(f"--max_error={flag} is out of range: give 0 to 127")
    return flag


SIZES = (
    ("width", "units of a hidden layer"),
    ("blocks", "residual layers"),
    ("fine_width", "units between bin and value"),
    ("gate_width", "units of the gate"),
)


def _parser() -> Parser:
    parser = Parser(__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for function, add_arguments in (
        (compress, _compress_arguments),
        (decompress, _decompress_arguments),
        (info, lambda add: add("file", help="the compressed file")),
        (verify, _verify_arguments),
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
    add("out", help="the compressed file")
    add("--mode", default="lossless", help=", ".join(container.MODES))
    add("--max_error", type=int, default=0, help="near-lossless: largest pixel error")
    add("--model", help=f"{', '.join(model_file.NAMES)} or a model file")
    add("--embed_model", action="store_true", help="put the model into the file")
    _run_flag(add)
    add("--bits", type=int, default=8, help="latent: bits of a latent, 1 to 8")
    add("--block_images", type=int, default=1024, help="images a block, at most")
    inputs.add_flags(add)


def _decompress_arguments(add: Callable) -> None:
    add("file", help="the compressed file")
    add("out", help="the .npy file to write")
    add("--index", type=int, help="decode this image alone")
    add("--range", help="decode images FIRST:END")
    add("--model", help="model file, if neither shipped nor embedded")
    _run_flag(add)


def _verify_arguments(add: Callable) -> None:
    add("file", help="the compressed file")
    add("images", nargs="?", help="what it should hold")
    add("--model", help="model file, if neither shipped nor embedded")
    _run_flag(add)
    inputs.add_flags(add)


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
    add("--start", help="model file of the same sizes to begin with")
    add("--folder", help="for checkpoints; default OUT.training")
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
