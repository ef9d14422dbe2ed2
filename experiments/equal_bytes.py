"""Equal bytes, not equal floats: distortion at 128, 64, 32 and 16 bytes an image.

  python -m experiments.equal_bytes --workdir=W --train_examples=20000 --epochs=3 \
      --emnist_archive=gzip.zip                                      # 4 trainings

Autoencoders of several latent widths, their latents quantised to so many bits each
(a uniform grid, fitted to the training latents), as trained and tuned to it
(quantisation-aware, encoder and decoder); beside them principal components quantised
the same way, JPEG and WebP of sheets of 1,024 images, which spread their headers over
many, and the float32 latents of other runs (`--beside`). `coded` rows are files of the
codec's latent mode, whose levels and tables are fitted to the images in the file and
stored in it, of the autoencoders and of principal components. Runs and rows are kept
in W and not made again; `equal_bytes.json`, `.md` and `.png` are made from those files
alone.
"""

import dataclasses
import itertools
import pathlib
from collections.abc import Callable, Iterator, Sequence

import matplotlib.pyplot as plt
import numpy as np

from emnist_jax import codec
from emnist_jax.cli.arguments import comma_separated, count
from emnist_jax.cli.command import run_command
from emnist_jax.cli.errors import UserError
from emnist_jax.data.selection import Selection
from emnist_jax.runs import Run, load_run
from emnist_jax.runs.plots import STYLE, save
from emnist_jax.storage import files
from experiments import image_codecs, pca, study, tables
from experiments.claims import quality
from experiments.quantised import Grid, tune

BUDGETS = (128, 64, 32, 16)  # bytes an image
BITS = (2, 4, 8)  # of a latent
TOLERANCE = 0.01  # of the mean squared error, what counts as equal
CODED_BITS = range(3, 9)  # of a latent before it is entropy-coded
DIMENSIONS = (16, 32, 64, 128)


@dataclasses.dataclass(frozen=True)
class ComponentsRun:
    """The first principal components, as the codec expects an autoencoder."""

    components: pca.Components
    dimension: int

    @property
    def decoder(self) -> tuple[None, list[np.ndarray]]:
        """What the codec names the decoder's parameters by."""
        return None, [self.components.mean, self.components.directions]

    def encode(self, images: np.ndarray) -> np.ndarray:
        """Coordinates float32 [N, dimension] of images."""
        return self.components.encode(images)[:, : self.dimension]

    def decode(self, latents: np.ndarray) -> np.ndarray:
        """Images float32 [N, 28, 28, 1]."""
        return self.components.decode(latents)


# Name of a row, what gives (bytes an image, reconstructions) or None, and the budget
# that it counts for (None: the smallest that holds its bytes).
Methods = Iterator[tuple[str, Callable, int | None]]


def measure_missing(
    workdir: pathlib.Path,
    dimensions: list[int],
    data: Selection,
    tuning_steps: int,
    beside: list[Run],
) -> None:
    """Measures every method and budget that has no file yet.

    Args:
      workdir: holds the runs `latents-<D>`; rows go into its rows/ folder.
      dimensions: the latent widths D.
      data: the images that those runs were made from.
      tuning_steps: of each autoencoder tuned to its grid.
      beside: runs whose float32 latents are measured too.
    """
    images, train = data.test.images, data.train.images
    components = pca.fit(train, max(dimensions))
    runs = {d: load_run(workdir / f"latents-{d}") for d in dimensions}
    exact = [run for d, run in runs.items() if 4 * d in BUDGETS] + beside
    for name, make, budget in itertools.chain(
        _on_grids(runs, components, data, tuning_steps, workdir / "tuning"),
        _coded(runs, components, images),
        _as_floats(exact, images),
        _classical(images),
    ):
        path = workdir / "rows" / f"{name}.json"
        if path.exists():
            continue
        print(name, flush=True)
        row = {"name": name, "method": name.split("-")[0], "test": len(images)}
        if (made := make()) is not None:
            size, outputs = made
            budget = budget or min((b for b in BUDGETS if b >= size), default=None)
            row |= {"bytes": size, **quality(images, outputs)}
        files.write_json(path, row | {"budget": budget})


def _on_grids(
    runs: dict[int, Run],
    components: pca.Components,
    data: Selection,
    tuning_steps: int,
    tuning: pathlib.Path,
) -> Methods:
    """Latents rounded to a uniform grid: as they are, tuned to it, and those of PCA."""
    images, train = data.test.images, data.train.images
    linear = components.encode(train), components.encode(images)
    for (dimension, run), bits in itertools.product(runs.items(), BITS):
        budget = dimension * bits // 8
        if budget not in BUDGETS:
            continue
        grid = Grid(run.encode(train), bits)
        name = f"{dimension}x{bits}"

        def plain(run=run, grid=grid, budget=budget):
            return budget, run.decode(grid.values(run.encode(images)))

        def tuned(run=run, grid=grid, budget=budget, folder=tuning / name):
            made = tune(run, grid, train, tuning_steps, folder)
            return budget, made.decode(grid.values(made.encode(images)))

        def principal(dimension=dimension, bits=bits, budget=budget):
            rows, test = (x[:, :dimension] for x in linear)
            return budget, components.decode(Grid(rows, bits).values(test))

        yield f"autoencoder-{name}", plain, None
        yield f"tuned-{name}", tuned, None
        yield f"pca-{name}", principal, None


def _coded(
    runs: dict[int, Run], components: pca.Components, images: np.ndarray
) -> Methods:
    """Latents, and those of PCA, in files of the codec."""
    for dimension, run in runs.items():
        principal = ComponentsRun(components, dimension)
        for method, model in (("coded", run), ("coded_pca", principal)):
            for bits in CODED_BITS:

                def coded(model=model, bits=bits):
                    content = codec.compress(
                        images, mode="latent", run=model, bits=bits
                    )
                    found = codec.decompress(content, run=model)
                    return len(content) / len(images), found / np.float32(255)

                yield f"{method}-{dimension}x{bits}", coded, None


def _as_floats(runs: list[Run], images: np.ndarray) -> Methods:
    """Latents as float32, the published form."""
    for run in runs:

        def exact(run=run):
            return 4 * run.latent_dim, run.decode(run.encode(images))

        yield f"float32-{run.path.name}", exact, None


def _classical(images: np.ndarray) -> Methods:
    """JPEG and WebP, the best that fits each budget."""
    for kind, budget in itertools.product(("JPEG", "WEBP"), BUDGETS):

        def classical(kind=kind, budget=budget):
            found = image_codecs.best_within(kind, images, budget)
            return found and (found[0], found[2] / np.float32(255))

        yield f"{kind.lower()}-{budget}", classical, budget


def format_markdown(rows: list[dict]) -> str:
    """The rows as a Markdown table, the best of each budget marked."""
    cells = []
    for budget in BUDGETS:
        group = [row for row in rows if row["budget"] == budget]
        group.sort(key=lambda row: row.get("mse", np.inf))
        for place, row in enumerate(group):
            found = ["needs more", "-", "-", "-"]
            if "mse" in row:
                mse = f"{row['mse']:.5f}"
                found = [f"{row['bytes']:.1f}", mse if place else f"**{mse}**"]
                found += [f"{row['psnr']:.2f}", f"{row['ssim']:.4f}"]
            cells.append([budget, tables.plain(row["name"]), *found])
    parts = [
        tables.markdown(
            "bytes at most | method | bytes an image | MSE | PSNR dB | SSIM", cells
        )
    ]
    for dimension, (row, share) in equal_quality(rows).items():
        parts.append(
            f"{dimension} latents: `{row['name']}` takes {100 * share:.1f}% of the "
            f"bytes of float32 at an MSE at most {100 * TOLERANCE:.0f}% higher.\n"
        )
    return "\n".join(parts)


def equal_quality(rows: list[dict]) -> dict[int, tuple[dict, float]]:
    """The smallest coded latents as good as float32, and their part of the bytes.

    Args:
      rows: of the study; those of equal latent width are compared.

    Returns:
      (row, bytes of it / bytes of float32) by latent width.
    """
    found = {}
    for exact in rows:
        width = exact["name"].removeprefix("float32-latents-")
        if not width.isdigit():
            continue
        good = [
            row
            for row in rows
            if row["name"].startswith(f"coded-{width}x")
            and row["mse"] <= (1 + TOLERANCE) * exact["mse"]
        ]
        if good:
            row = min(good, key=lambda row: row["bytes"])
            found[int(width)] = row, row["bytes"] / exact["bytes"]
    return found


def draw(
    rows: list[dict], path: pathlib.Path, budgets: Sequence[int] = BUDGETS
) -> pathlib.Path:
    """Distortion against bytes: what of each method nothing smaller of it beats."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(6, 3.8))
        for method in dict.fromkeys(row["method"] for row in rows):
            points = []
            made = (r for r in rows if r["method"] == method and "mse" in r)
            for row in sorted(made, key=lambda row: (row["bytes"], row["mse"])):
                if not points or row["mse"] < points[-1][1]:
                    points.append((row["bytes"], row["mse"]))
            if points:
                axes.plot(*zip(*points, strict=True), "o-", ms=4, label=method)
        axes.set(
            xscale="log",
            yscale="log",
            xlabel="bytes an image",
            ylabel="test MSE",
            xticks=budgets,
            xticklabels=budgets,
        )
        axes.minorticks_off()
        axes.legend()
    return save(figure, path)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command of the module's docstring."""
    parser = study.StudyParser(__doc__)
    add, widths = parser.add_argument, comma_separated(int, DIMENSIONS)
    add("--decoder", default="model01", help="which of the four decoders")
    add("--dimensions", type=widths, default=DIMENSIONS, help="latent widths")
    help = "of each autoencoder tuned to its grid"
    add("--tuning_steps", type=count, default=300, help=help)
    help = "runs whose float32 latents are shown beside"
    add("--beside", type=comma_separated(), default=(), help=help)
    parser.add_runs(seeds=None)
    flags = parser.parse_args(argv)
    workdir = pathlib.Path(flags.workdir)
    beside = [load_run(path, flag="--beside") for path in flags.beside]
    if flags.runs:
        study.claim_folder(workdir, "equal_bytes", flags, "decoder", "tuning_steps")
        settings = [f"--decoder={flags.decoder}", *study.run_settings(flags)]
        dimensions = flags.dimensions
        runs = {f"latents-{d}": [*settings, f"--latent_dim={d}"] for d in dimensions}
        study.run_missing(workdir, runs)
        data = study.images_of(load_run(workdir / next(iter(runs))), flags)
        measure_missing(workdir, dimensions, data, flags.tuning_steps, beside)
    rows = [files.read_json(path) for path in sorted(workdir.glob("rows/*.json"))]
    if not rows:
        raise UserError(f"--workdir={workdir}: holds no row of this study")
    draw(rows, workdir / "equal_bytes.png")
    study.write(workdir / "equal_bytes", {"rows": rows}, format_markdown(rows))


if __name__ == "__main__":
    run_command(main)
