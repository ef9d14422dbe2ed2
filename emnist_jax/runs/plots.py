"""Figures of a run, drawn from its files: `python -m emnist_jax.runs.plots RUN`."""

import os
import pathlib

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np

from emnist_jax.storage import files, paths, results
from emnist_jax.storage.arrays import read_archive

EXAMPLES = ("original", "autoencoder", "decoder_only", "group", "mse", "index")
# On any page: an opaque white ground and dark text, whatever matplotlibrc says.
STYLE = {
    **dict.fromkeys(("figure.facecolor", "axes.facecolor"), "white"),
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor"), "#222222"),
    **dict.fromkeys(("xtick.color", "ytick.color"), "#222222"),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e5e5e5",
    "font.size": 9,
    "figure.dpi": 150,
    "legend.frameon": False,
}


def draw_run(
    path: str | os.PathLike, out: pathlib.Path | None = None
) -> list[pathlib.Path]:
    """Draws loss curves, reconstructions, and the best and worst images.

    Args:
      path: the run's folder, with metrics.jsonl.
      out: the folder with figures/examples.npz, where figures go; None is the run.

    Returns:
      The PNG files, in figures/.
    """
    path = pathlib.Path(path)
    out, title = out or path, path.name
    examples = load_examples(out)
    figures = {"reconstructions": reconstructions(examples, title)}
    if (path / "metrics.jsonl").exists():  # imported runs have never been trained
        lines = results.read_metrics(path / "metrics.jsonl", lambda warning: None)
        figures["loss"] = loss_curves(lines, title)
    figures["best_and_worst"] = best_and_worst(examples, title)
    folder = paths.inside(out, "figures")
    return [save(figure, folder / f"{name}.png") for name, figure in figures.items()]


def load_examples(run: pathlib.Path) -> dict[str, np.ndarray]:
    """Ten random, the ten best and the ten worst test images of a run.

    Returns:
      `original`, `autoencoder`, `decoder_only` uint8 `[30, H, W, 1]`, `group` (their
      kinds), `mse` and `index` `[30]`.

    Raises:
      UserError: the run has none, or they are damaged.
    """
    path = run / "figures" / "examples.npz"
    return read_archive(path, lambda names: EXAMPLES)


def save(figure: plt.Figure, path: pathlib.Path) -> pathlib.Path:
    """Writes a figure as PNG and closes it."""
    with files.write_atomically(path) as temporary:
        figure.savefig(temporary, bbox_inches="tight", facecolor="white")
    plt.close(figure)
    return path


def loss_curves(lines: list[dict], title: str) -> plt.Figure:
    """Training and validation loss over the epochs, on a logarithmic axis."""
    steps = [line for line in lines if line["event"] == "step"]
    epochs = [line for line in lines if line["event"] == "epoch"]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(6, 3.4))
        x = [line["epoch"] for line in steps]
        axes.plot(x, [line["loss"] for line in steps], color="#9ecae1", lw=0.8)
        x = [line["epoch"] for line in epochs]
        for name, color in (("train", "#3182bd"), ("validation", "#e6550d")):
            y = [line[f"{name}_loss"] for line in epochs]
            axes.plot(x, y, "o-", color=color, ms=3, lw=1.4, label=name)
        axes.set(yscale="log", xlabel="epoch", ylabel="mean squared error", title=title)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend()
    return figure


def reconstructions(examples: dict[str, np.ndarray], title: str) -> plt.Figure:
    """Ten random test images above what both paths make of them."""
    chosen = examples["group"] == "random"
    names = ("original", "autoencoder", "decoder_only")
    rows = [(name.replace("_", " "), examples[name][chosen]) for name in names]
    return _grid(rows, examples["mse"][chosen], title)


def best_and_worst(examples: dict[str, np.ndarray], title: str) -> plt.Figure:
    """The test images with the smallest and the largest error."""
    rows, errors = [], []
    for group in ("best", "worst"):
        chosen = examples["group"] == group
        for name in ("original", "autoencoder"):
            rows.append((f"{group}\n{name}", examples[name][chosen]))
        errors.append(examples["mse"][chosen])
    return _grid(rows, np.concatenate(errors), title)


def _grid(
    rows: list[tuple[str, np.ndarray]], mse: np.ndarray, title: str
) -> plt.Figure:
    """Images in rows with names; errors stand under every second or the last row."""
    columns = len(rows[0][1])
    groups = mse.reshape(-1, columns)
    below = len(rows) // len(groups)  # an error stands under the last row of its group
    figure = image_grid(rows, {below * (i + 1) - 1: x for i, x in enumerate(groups)})
    with plt.rc_context(STYLE):
        figure.suptitle(f"{title}: mean squared error under each image", fontsize=9)
    return figure


def image_grid(
    rows: list[tuple[str, np.ndarray]], errors: dict[int, np.ndarray] | None = None
) -> plt.Figure:
    """Rows of as many images each, uint8 [N, H, W, 1], their names on the left.

    In one pair of axes: a pair for each image takes seconds to lay out. `errors` holds
    numbers [N] by the row that they stand under.
    """
    columns, height, width = rows[0][1].shape[:3]
    across = 1.12 * width  # pixels from one image to the next
    down = max(height + 0.28 * width, 0.6 * width)  # room for errors, and for a name
    inch = across / 0.75  # in pixels
    size = (columns * across / inch + 1, len(rows) * down / inch + 0.4)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=size)
        axes.set_axis_off()
        for row, (name, images) in enumerate(rows):
            top = row * down
            axes.text(-0.3 * width, top + height / 2, name, ha="right", va="center")
            for column, image in enumerate(images[..., 0]):
                left = column * across
                place = (left, left + width, top + height, top)
                axes.imshow(image, cmap="gray", vmin=0, vmax=255, extent=place)
            for column, error in enumerate((errors or {}).get(row, ())):
                x = column * across + width / 2
                y = top + height + 0.05 * width
                axes.text(x, y, f"{error:.4f}", fontsize=7, ha="center", va="top")
        axes.set(xlim=(0, columns * across), ylim=(len(rows) * down, 0))
    return figure
