"""Does a lossy preview pay inside the lossless file? Pixel models with and without.

    python -m experiments.codec_conditioning --run=runs/NAME \
        --emnist_archive=gzip.zip --out=experiments/results/codec/conditioning.json

Three equal, short trainings of the default's size: on the causal context alone, and
with the 5x5 pixels around the one to code in the autoencoder's reconstruction from
latents of 8 and of 4 bits. Rates are of held-out training images, in floating point;
the coded bytes of the latents are added. The autoencoder may have seen some of the
held-out images in its training, which flatters previews. Ten minutes on two cores.
"""

import pathlib
from collections.abc import Sequence

import numpy as np

import emnist_jax
from emnist_jax.cli.arguments import count
from emnist_jax.cli.command import run_command
from emnist_jax.codec import latent_fit
from emnist_jax.codec.fit import PixelTraining, fit_samplers
from emnist_jax.codec.integer_form import PixelModelConfig
from emnist_jax.codec.pixel_model import PixelModel, bits_per_pixel
from emnist_jax.codec.sampler import PixelSampler, hold_out_distinct
from emnist_jax.storage import files, paths
from experiments import study

REACH = 2  # pixels of the preview to each side


class PreviewSampler(PixelSampler):
    """Contexts with pixels of a preview after them."""

    def __init__(self, images: np.ndarray, previews: np.ndarray):
        """Takes uint8 [N, height, width] twice."""
        super().__init__(images)
        self._previews = np.pad(previews, ((0, 0), (REACH, REACH), (REACH, REACH)))

    def _take(self, index: np.ndarray) -> dict[str, np.ndarray]:
        taken = super()._take(index)
        image, pixel = np.divmod(index, self._size)
        row, column = np.divmod(pixel, self._previews.shape[2] - 2 * REACH)
        around = np.arange(2 * REACH + 1)
        window = self._previews[
            image[:, None, None],
            (row[:, None] + around)[:, :, None],
            (column[:, None] + around)[:, None],
        ]
        window = window.reshape(len(index), -1)
        return {**taken, "context": np.concatenate([taken["context"], window], axis=1)}


def train(
    config: PixelTraining,
    sampler: PixelSampler,
    judge: PixelSampler,
    folder: pathlib.Path,
) -> float:
    """Bits per pixel of `judge` after training on `sampler`."""
    params, _ = fit_samplers(config, sampler, judge, folder)
    return bits_per_pixel(PixelModel(config.model), params, judge, False)


def main(argv: Sequence[str] | None = None) -> None:
    """Trains and writes one JSON file."""
    parser = study.StudyParser(__doc__)
    add = parser.add_argument
    add("--run", required=True, help="folder of a trained autoencoder")
    parser.add_data()
    for name, default, help in (
        ("steps", 600, "of each training"),
        ("images", 12000, "images to train on"),
        ("held_out", 500, "images to judge by"),
        ("width", 192, "of the pixel models"),
    ):
        add(f"--{name}", type=count, default=default, help=help)
    add("--out", required=True, help="a .json file")
    flags = parser.parse_args(argv)
    paths.check_output(flags.out, flags.emnist_archive, flag="--out=")
    dataset = study.load_dataset(flags)
    run = emnist_jax.load_run(flags.run, flag="--run")
    images, held_out = hold_out_distinct(dataset.train.images[..., 0], seed=0)
    images, held_out = images[: flags.images], held_out[: flags.held_out]
    config = PixelTraining(
        PixelModelConfig(flags.width, 2, 64, 32),
        steps=flags.steps,
        learning_rate=0.011,
    )
    folder = pathlib.Path(f"{flags.out}.training")
    folder /= f"{len(images)}-{len(held_out)}"
    plain = PixelSampler(images), PixelSampler(held_out)
    none = train(config, *plain, folder / "none")
    rows = [{"preview": "none", "bpp_pixels": none, "bpp_latents": 0.0, "bpp": none}]
    for bits in (8, 4):
        coder, _ = latent_fit.fit(run, images, "the images", bits)
        levels = [coder.symbols(part) for part in (images, held_out)]
        samplers = [
            PreviewSampler(part, coder.images(level))
            for part, level in zip((images, held_out), levels, strict=True)
        ]
        (stream,), _ = coder.encode([levels[1]], lambda share: None)
        latents = 8 * len(stream) / held_out.size
        bpp = train(config, *samplers, folder / f"{bits}-bits")
        row = {"preview": f"{bits}-bit latents", "bpp_pixels": bpp}
        rows.append(row | {"bpp_latents": latents, "bpp": bpp + latents})
    about = {"source": dataset.source, "run": pathlib.Path(flags.run).name}
    about |= {"steps": flags.steps, "images": len(images), "held_out": len(held_out)}
    files.write_json(flags.out, about | {"rows": rows})


if __name__ == "__main__":
    run_command(main)
