"""What latents hold, in pictures: each one varied, a map, and what several runs keep.

  python -m experiments.latent_figures --runs=pretrained/model02,PUBLISHED \
      --emnist_archive=gzip.zip --out=FOLDER

Writes three figures of the test images into FOLDER. `traversal.png`: one character with
each latent of the first run in turn at its 1st, 25th, 75th and 99th percentile, those
first that change it most. `map.png`: the plane of the two principal directions of the
first run's latents, with the characters that lie there. `reconstructions.png`: ten
images above what each run makes of them. A minute on two cores.
"""

import pathlib
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np

from emnist_jax.cli.arguments import comma_separated, count
from emnist_jax.cli.command import run_command
from emnist_jax.cli.errors import UserError
from emnist_jax.runs import Run, load_run, plots
from emnist_jax.storage import paths
from experiments import study

PERCENTILES = (1, 25, 50, 75, 99)  # in place of the 50th the character's own value
BLOCKS = 4  # latents side by side in the traversal
SHOWN = 10  # images that are reconstructed
SIDE = 22  # characters along each side of the map


def traversal(run: Run, latents: np.ndarray, row: int) -> np.ndarray:
    """One character with each latent in turn at percentiles of all of them.

    Args:
      run: its decoder is used.
      latents: float32 `[N, D]`, which the percentiles are taken of.
      row: the character's.

    Returns:
      uint8 `[D, K, H, W]`, K as `PERCENTILES`; the middle one is as it was.
    """
    dimensions = latents.shape[1]
    varied = np.tile(latents[row], (dimensions, len(PERCENTILES), 1))
    for column, percentile in enumerate(PERCENTILES):
        if percentile != 50:
            at = np.arange(dimensions)
            varied[at, column, at] = np.percentile(latents, percentile, axis=0)
    images = to_bytes(run.decode(varied.reshape(-1, dimensions)))
    return images.reshape(dimensions, len(PERCENTILES), *images.shape[1:])


def strongest_first(varied: np.ndarray) -> np.ndarray:
    """Latents of `traversal` by the mean square of what they change, int `[D]`."""
    middle = varied[:, PERCENTILES.index(50)][:, None].astype(np.float32)
    return np.argsort(-((varied - middle) ** 2).mean(axis=(1, 2, 3)), kind="stable")


def on_a_map(latents: np.ndarray, side: int) -> np.ndarray:
    """Which point lies nearest to the middle of each cell of a map.

    Args:
      latents: float32 `[N, D]`, D at least 2.
      side: cells along each axis; the outermost 1% of the points lie beyond them, and
        count to the cell that they are beside.

    Returns:
      int `[side, side]`, first principal direction to the right, second upwards; -1 for
      cells without a point.
    """
    centred = latents - latents.mean(axis=0)[None]
    directions = np.linalg.svd(centred, full_matrices=False)[2][:2]
    points = centred @ directions.T  # [N, 2]
    low, high = np.percentile(points, (0.5, 99.5), axis=0)
    places = (points - low[None]) / np.maximum(high - low, 1e-9)[None] * side
    cells = np.clip(np.floor(places).astype(int), 0, side - 1)
    distances = ((places - cells - 0.5) ** 2).sum(axis=1)
    found = np.full((side, side), -1)
    for point in np.argsort(-distances, kind="stable"):  # so that the nearest one stays
        column, row = cells[point]
        found[side - 1 - row, column] = point
    return found


def to_bytes(decoded: np.ndarray) -> np.ndarray:
    """Decoded `[N, H, W, 1]` in [0, 1] as uint8 `[N, H, W]`."""
    return np.round(255 * decoded[..., 0]).astype(np.uint8)


def draw_traversal(varied: np.ndarray, title: str) -> plt.Figure:
    """All latents in rows of `BLOCKS`, a number beside each."""
    order = strongest_first(varied)
    _, columns, height, width = varied.shape
    rows = -(-len(order) // BLOCKS)
    across, down = columns * width + 1.2 * width, height + 4
    size = (9, 9 * (rows * down) / (BLOCKS * across) + 0.4)
    with plt.rc_context(plots.STYLE):
        figure, axes = plt.subplots(figsize=size)
        axes.set_axis_off()
        for place, latent in enumerate(order):
            row, block = divmod(place, BLOCKS)
            left, top = block * across + 1.1 * width, row * down
            strip = np.concatenate(varied[latent], axis=1)
            extent = (left, left + columns * width, top + height, top)
            axes.imshow(strip, cmap="gray", vmin=0, vmax=255, extent=extent)
            label = dict(ha="right", va="center", fontsize=8)
            axes.text(left - 4, top + height / 2, str(latent), **label)
        axes.set(xlim=(0, BLOCKS * across), ylim=(rows * down, 0), title=title)
    return figure


def draw_map(images: np.ndarray, cells: np.ndarray, title: str) -> plt.Figure:
    """Images uint8 `[N, H, W]` where `cells`, of `on_a_map`, say."""
    side, (height, width) = len(cells), images.shape[1:]
    sheet = np.zeros((side, height, side, width), np.uint8)
    filled = np.nonzero(cells >= 0)
    sheet[filled[0], :, filled[1]] = images[cells[filled]]
    with plt.rc_context(plots.STYLE):
        figure, axes = plt.subplots(figsize=(7, 7 * height / width + 0.6))
        axes.imshow(sheet.reshape(side * height, -1), cmap="gray_r", vmin=0, vmax=255)
        axes.set(xticks=(), yticks=(), title=title)
        axes.set(xlabel="first principal direction", ylabel="second")
    return figure


def draw_reconstructions(
    images: np.ndarray, again: dict[str, np.ndarray], rows: np.ndarray
) -> plt.Figure:
    """The images at `rows` above what each run makes of them, by its name."""
    lines = [("original", images[rows][..., None])]
    for name, decoded in again.items():
        error = float(np.mean((decoded / 255.0 - images / 255.0) ** 2))
        lines.append((f"{name}\nMSE {error:.4f}", decoded[rows][..., None]))
    return plots.image_grid(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command of the module's docstring."""
    parser = study.StudyParser(__doc__)
    add, help = parser.add_argument, "trained runs, comma-separated"
    add("--runs", type=comma_separated(), required=True, help=help)
    parser.add_data()
    add("--images", type=count, help="only so many test images (default: all)")
    add("--seed", type=int, default=2, help="which images are shown")
    add("--out", required=True, help="folder of the figures")
    flags = parser.parse_args(argv)
    names = ("traversal", "map", "reconstructions")
    outputs = [
        paths.check_output(f"{flags.out}/{name}.png", flag="--out=") for name in names
    ]
    runs = {path.rstrip("/"): load_run(path, flag="--runs") for path in flags.runs}
    labels = {path: pathlib.Path(path).name for path in runs}
    if len(set(labels.values())) < len(flags.runs):
        raise UserError(f"--runs={','.join(flags.runs)}: two have the same name")
    images = study.load_dataset(flags).test.images[: flags.images]
    if len(images) < SHOWN:
        raise UserError(f"{len(images)} test images are too few: at least {SHOWN}")
    first, run = next(iter(runs.items()))
    if run.latent_dim < 2:
        raise UserError(f"--runs={first}: a map needs at least 2 latents")
    shown = np.random.default_rng(flags.seed).choice(len(images), SHOWN, replace=False)
    latents = {name: run.encode(images) for name, run in runs.items()}
    again = {
        labels[path]: to_bytes(run.decode(latents[path])) for path, run in runs.items()
    }
    varied = traversal(run, latents[first], shown[0])
    percentiles = ", ".join(str(p) for p in PERCENTILES if p != 50)
    cells, images = on_a_map(latents[first], SIDE), images[..., 0]
    figures = (
        draw_traversal(varied, f"{first}: latents at their percentiles {percentiles}"),
        draw_map(images, cells, f"{first}: test images by their latents"),
        draw_reconstructions(images, again, shown),
    )
    for output, figure in zip(outputs, figures, strict=True):
        print(plots.save(figure, output))


if __name__ == "__main__":
    run_command(main)
