"""Command line of the codec: `python -m emnist_jax.codec --help`."""

import pathlib
from collections.abc import Callable, Iterator

import numpy as np
from tqdm import tqdm

from emnist_jax.cli.arguments import Parser
from emnist_jax.cli.console import format_duration
from emnist_jax.cli.errors import UserError, run_command
from emnist_jax.cli.interrupts import Interrupts
from emnist_jax.codec import container, inputs, model_file, reader, writer
from emnist_jax.storage import files, paths


def _bar(images: int, what: str) -> tqdm:
    return tqdm(
        total=images,
        desc=what,
        unit=" images",
        disable=None,
        leave=False,
        mininterval=1,
    )


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
    pictures = pathlib.Path(arguments.images).glob("*.[pP][nN][gG]")
    _check_output(arguments.out, arguments, *pictures)
    images = inputs.read_images(
        arguments.images, arguments.split, arguments.emnist_archive
    )
    with _bar(len(images), "compressing") as bar:
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
    names = ("images", "emnist_archive", "model", "start")
    paths.check_output(out, *inputs, *(getattr(arguments, n, None) for n in names))


def _rate(images: int, pixels: int, size: int) -> str:
    rate = f", {8 * size / pixels:.4f} bits per pixel" if pixels else ""
    return f"{images} images, {size} bytes{rate}"


def decompress(arguments) -> None:
    """Decompresses a file, an image or a range of images into a .npy file."""
    out = paths.check_output(arguments.out, arguments.file, arguments.model)
    with _open(arguments) as opened:
        start, stop = _chosen(arguments, len(opened))
        with _bar(stop - start, "decompressing") as bar:
            _write_npy(
                out,
                (stop - start, *opened.shape[1:]),
                opened.pieces(start, stop, bar.update),
            )
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


def _write_npy(
    path: pathlib.Path, shape: tuple[int, ...], pieces: Iterator[np.ndarray]
) -> None:
    with files.write_atomically(path) as temporary, open(temporary, "wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for piece in pieces:
            file.write(np.ascontiguousarray(piece).data)


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
            images = inputs.read_images(
                arguments.images, arguments.split, arguments.emnist_archive
            )
            if images.shape != opened.shape:
                raise UserError(
                    f"{arguments.file} holds {opened.shape}, {arguments.images} "
                    f"{images.shape}"
                )
        worst, first = 0, 0
        with _bar(len(opened), "verifying") as bar:
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
    from emnist_jax.codec import fit, integer_form, integer_model, pixel_model, sampler

    folder = arguments.folder or f"{arguments.out}.training"
    _check_output(arguments.out, arguments)
    images = inputs.read_images(arguments.images, "train", arguments.emnist_archive)
    config = fit.PixelTraining(
        model=pixel_model.PixelModelConfig(
            width=arguments.width,
            blocks=arguments.blocks,
            fine_width=arguments.fine_width,
            gate_width=arguments.gate_width,
        ),
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
    plain = writer.check_images(images, arguments.images)
    with Interrupts().noted():
        params, figures = fit.fit(
            config,
            *sampler.hold_out_distinct(plain, arguments.seed),
            folder,
            start,
        )
    integers = integer_form.quantise(config.model, params)
    model_file.save(arguments.out, integer_model.IntegerModel(config.model, integers))
    print(
        f"{arguments.out}: {figures['bpp_quantised']:.4f} bits per pixel on held-out "
        f"images ({figures['bpp_float']:.4f} before rounding), after "
        f"{figures['steps']} steps in {format_duration(60 * figures['minutes'])}"
    )


def _error(flag: int) -> int:
    if not 0 <= flag <= 127:
        raise UserError(f"--max_error={flag} is out of range: give 0 to 127")
    return flag


def _parser() -> Parser:
    parser = Parser(__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(function: Callable) -> Callable:
        one = commands.add_parser(
            function.__name__,
            help=function.__doc__,
            description=function.__doc__,
        )
        one.set_defaults(function=function)
        return one.add_argument

    def data_flags(add: Callable) -> None:
        add("--split", default="test", help="of a data set: train or test")
        add("--emnist_archive", help="a copy of NIST's gzip.zip")

    images_help = ".npy, .npz, IDX, folder of PNG, or a data set (emnist/balanced)"
    run_help = "run folder of the autoencoder, for latent files"

    add = command(compress)
    add("images", help=images_help)
    add("out", help="the compressed file")
    add("--mode", default="lossless", help=", ".join(container.MODES))
    add("--max_error", type=int, default=0, help="near-lossless: largest pixel error")
    add("--model", help=f"{', '.join(model_file.NAMES)} or a model file")
    add("--embed_model", action="store_true", help="put the model into the file")
    add("--run", help=run_help)
    add("--bits", type=int, default=8, help="latent: bits of a latent, 1 to 8")
    add("--block_images", type=int, default=1024, help="images a block, at most")
    data_flags(add)

    add = command(decompress)
    add("file", help="the compressed file")
    add("out", help="the .npy file to write")
    add("--index", type=int, help="decode this image alone")
    add("--range", help="decode images FIRST:END")
    add("--model", help="model file, if neither shipped nor embedded")
    add("--run", help=run_help)

    command(info)("file", help="the compressed file")

    add = command(verify)
    add("file", help="the compressed file")
    add("images", nargs="?", help="what it should hold")
    add("--model", help="model file, if neither shipped nor embedded")
    add("--run", help=run_help)
    data_flags(add)

    add = command(train)
    add("images", help=images_help)
    add("out", help="the model file to write")
    add("--minutes", type=float, default=60.0, help="length of the training")
    add("--steps", type=int, default=0, help="its length in steps instead")
    add("--width", type=int, default=384, help="units of a hidden layer")
    add("--blocks", type=int, default=2, help="residual layers")
    add("--fine_width", type=int, default=128, help="units between bin and value")
    add("--gate_width", type=int, default=64, help="units of the gate")
    add("--batch_size", type=int, default=4096, help="pixels a step")
    add("--learning_rate", type=float, default=0.011, help="highest learning rate")
    add("--seed", type=int, default=0, help="of parameters, order and held-out images")
    add("--max_error", type=int, default=0, help="near-lossless bound to train for")
    add("--start", help="model file of the same sizes to begin with")
    add("--folder", help="for checkpoints; default OUT.training")
    add("--emnist_archive", help="a copy of NIST's gzip.zip")
    return parser


def main() -> None:
    """Runs the command that the arguments name."""
    arguments = _parser().parse_args()
    arguments.function(arguments)


if __name__ == "__main__":
    run_command(main)
