"""The figure of README: test images, and what is left of them at fewer and fewer bytes.

  python -m experiments.bytes_figure --run=pretrained/model02 --published=RUN \
      --emnist_archive=gzip.zip --out=docs/figures/bytes.png

RUN is the published model01, from `emnist-jax import`. Bytes an image
and errors are those of real files of all test images, of which the figure shows a few,
drawn by a seed. Some seven minutes on two cores.
"""

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

import emnist_jax
from emnist_jax import codec
from emnist_jax.cli.command import run_command
from emnist_jax.storage import files, paths
from experiments import study


class Column(NamedTuple):
    """One way to keep images."""

    title: str
    size: float  # bytes an image
    images: np.ndarray  # as they come back

    def caption(self, images: np.ndarray) -> str:
        """Its title, bytes an image and the mean squared error."""
        error = float(np.mean((self.images / 255.0 - images / 255.0) ** 2))
        shown = "every pixel" if error == 0 else f"MSE {error:.2g}"
        return f"{self.title}\n{self.size:.0f} bytes\n{shown}"


def columns(images: np.ndarray, run: str, published: str) -> list[Column]:
    """What the codec, the run's latents and the published weights make of images.

    Args:
      images: uint8 `[N, 28, 28]`.
      run: a trained autoencoder, for `load_run`.
      published: the run of the published weights.
    """

    def coded(title: str, **options) -> Column:
        content = codec.compress(images, **options)
        back = codec.decompress(content, run=options.get("run"))
        return Column(title, len(content) / len(images), back)

    study_run = emnist_jax.load_run(published, flag="--published")
    latents = study_run.encode(images)
    again = np.round(255 * study_run.decode(latents)[..., 0])
    near = dict(mode="near-lossless", max_error=4)
    lossy = dict(mode="lossy", bytes_per_image=32)
    model = emnist_jax.load_run(run)
    latent = dict(mode="latent", run=model, bits=6)
    return [
        Column("original", images[0].size, images),
        coded("lossless"),
        coded("no pixel off\nby more than 4", **near),
        coded("lossy", **lossy),
        coded("32 latents,\ncoded", **latent),
        Column("published,\nfloat32", latents[0].nbytes, again),
    ]


def draw(shown: list[Column], images: np.ndarray, rows: np.ndarray, out: pathlib.Path):
    """Draws the images at `rows`, a row each, a column each way to keep them."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    size = (1.35 * len(shown), 1.2 * len(rows) + 0.75)
    figure, axes = plt.subplots(
        len(rows), len(shown), figsize=size, layout="constrained"
    )
    for line, row in zip(axes, rows, strict=True):
        for axis, column in zip(line, shown, strict=True):
            axis.imshow(column.images[row], cmap="gray", vmin=0, vmax=255)
            axis.axis("off")
    for axis, column in zip(axes[0], shown, strict=True):
        axis.set_title(column.caption(images), fontsize=9)
    with files.write_atomically(out) as temporary:
        figure.savefig(temporary, format="png", dpi=130, facecolor="white")
    plt.close(figure)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command of the module's docstring."""
    parser = study.StudyParser(__doc__)
    add = parser.add_argument
    add("--run", required=True, help="a trained autoencoder")
    add("--published", required=True, help="run of the published weights")
    parser.add_data()
    add("--images", type=int, help="only so many test images (default: all)")
    add("--out", default="bytes.png", help="the .png to write")
    flags = parser.parse_args(argv)
    out = paths.check_output(flags.out, flag="--out=")
    images = study.load_dataset(flags).test.images[: flags.images, ..., 0]
    shown = columns(images, flags.run, flags.published)
    rows = np.random.default_rng(2).choice(len(images), 3, replace=False)
    draw(shown, images, rows, out)
    for column in shown:
        print(column.caption(images).replace("\n", " "))


if __name__ == "__main__":
    run_command(main)
