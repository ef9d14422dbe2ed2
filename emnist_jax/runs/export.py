"""Writes a run for other programs, which need neither Flax nor this package.

  emnist-jax export --run=RUN --format=stablehlo --out=FOLDER
  emnist-jax export --run=RUN --format=onnx --out=FOLDER       # extra [onnx]

The folder gets encoder, decoder and autoencoder, each a file with its parameters, for
any number of images a batch. StableHLO is one artefact for CPU, CUDA, ROCm and TPU, for
`jax.export.deserialize`; ONNX is opset 17, compared with JAX before it is written.
"""

import pathlib
from collections.abc import Callable, Sequence

import jax
import numpy as np

from emnist_jax import cpu
from emnist_jax.cli.arguments import Parser
from emnist_jax.cli.command import run_command
from emnist_jax.cli.errors import UserError
from emnist_jax.runs import onnx_form
from emnist_jax.runs.run import Run, load_run
from emnist_jax.storage import files

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
FORMATS = ("stablehlo", "onnx")


def functions(run: Run) -> dict[str, tuple[Callable, tuple[int, ...]]]:
    """What is exported of a run: by name, a function and the shape of one input.

    Encoder and autoencoder take float32 images `[B, H, W, 1]` in [0, 1], the decoder
    float32 latents `[B, latent_dim]`; each returns the other, the autoencoder images.
    """
    (encoder, encoder_params), (decoder, decoder_params) = run.encoder, run.decoder

    def encode(images):
        return encoder.apply({"params": encoder_params}, images)

    def decode(latents):
        return decoder.apply({"params": decoder_params}, latents)

    images = (*run.image_size, 1)
    return {
        "encoder": (encode, images),
        "decoder": (decode, (run.decoder_latent_dim,)),
        "autoencoder": (lambda x: decode(encode(x)), images),
    }


def to_stablehlo(run: Run) -> dict[str, bytes]:
    """Serialised StableHLO by file name, for every platform at once.

    Raises:
      UserError: flatbuffers is not installed.
    """
    try:
        import flatbuffers  # noqa: F401  what jax.export serialises with
    except ImportError as error:
        raise UserError(
            "--format=stablehlo: needs flatbuffers: pip install 'emnist-jax[export]'"
        ) from error
    found = {}
    (batch,) = jax.export.symbolic_shape("batch")
    with cpu.plain_layers():  # the kernels are code of this machine
        for name, (function, shape) in functions(run).items():
            inputs = jax.ShapeDtypeStruct((batch, *shape), np.float32)
            program = jax.export.export(jax.jit(function), platforms=PLATFORMS)
            found[f"{name}.stablehlo"] = bytes(program(inputs).serialize())
    return found


def export(run: Run, form: str, out: pathlib.Path) -> list[pathlib.Path]:
    """Writes a run in a form of `FORMATS` to a new folder; returns the files.

    Raises:
      UserError: the form is unknown or lacks its extra, or the folder is taken.
    """
    if form not in FORMATS:
        raise UserError(f"--format={form} is unknown: give {' or '.join(FORMATS)}")
    write = to_stablehlo if form == "stablehlo" else onnx_form.to_onnx
    with files.write_folder(out) as folder:  # which is refused before any work
        folder.mkdir(exist_ok=True)
        content = write(run)
        for name, data in content.items():
            (folder / name).write_bytes(data)
    return [out / name for name in content]


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command of the module's docstring."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--run", required=True, help="the run's folder, or pretrained/NAME")
    add("--format", default="stablehlo", help=" or ".join(FORMATS))
    add("--out", required=True, help="the folder to write, a new one")
    flags = parser.parse_args(argv)
    run = load_run(flags.run, flag="--run")
    for path in export(run, flags.format, pathlib.Path(flags.out)):
        print(f"{path}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    run_command(main)
