"""Equal bytes, not equal floats: distortion at 128, 64, 32 and 16 bytes an image.

  python -m experiments.equal_bytes --workdir=W --train_examples=20000 --epochs=3 \
      --emnist_archive=gzip.zip                                      # 4 trainings

Autoencoders of several latent widths, their latents quantised to so many bits each
(a uniform grid over the training latents' range), with and without a decoder tuned to
quantised latents; beside them principal components quantised the same way, and JPEG
and WebP of sheets of 1,024 images, which spread their headers over many. Runs and
rows are kept in W and not made again; `equal_bytes.json`, `.md` and `.png` are made
from those files alone.
"""

import io
import pathlib
import sys
from collections.abc import Callable

import jax
import matplotlib.pyplot as plt
import numpy as np
import optax

from emnist_jax import files
from emnist_jax.config import make_config
from emnist_jax.data.batches import epoch_rows
from emnist_jax.data.selection import Selection, select
from emnist_jax.errors import run_command
from emnist_jax.flags import Flag, parse_flags
from emnist_jax.models.autoencoder import to_unit_range
from emnist_jax.models.layers import compiler_options
from emnist_jax.plots import STYLE, save
from emnist_jax.runs import Run, load_run
from experiments import matrix, pca
from experiments.claims import quality

BUDGETS = (128, 64, 32, 16)  # bytes an image
BITS = (2, 4, 8)  # of a latent
DIMENSIONS = (16, 32, 64, 128)
SHEET = 32  # images along each side of a sheet


class Grid:
    """A uniform quantiser of each column, fitted to the range of training rows."""

    def __init__(self, rows: np.ndarray, bits: int):
        """Fits `2**bits` levels a column to `rows` [N, D]."""
        self.low, high = rows.min(axis=0), rows.max(axis=0)
        self.levels = 2**bits
        self.step = np.maximum(high - self.low, 1e-6) / (self.levels - 1)

    def indices(self, rows: np.ndarray) -> np.ndarray:
        """Level uint8 [N, D] of each value; those out of range get the nearest."""
        places = np.round((rows - self.low[None]) / self.step[None])
        return np.clip(places, 0, self.levels - 1).astype(np.uint8)

    def values(self, indices: np.ndarray) -> np.ndarray:
        """Values float32 [N, D] of levels."""
        return (self.low[None] + indices * self.step[None]).astype(np.float32)


def tune_decoder(run: Run, latents: np.ndarray, images: np.ndarray, steps: int) -> Run:
    """The run with its decoder trained on, from quantised latents to images.

    Args:
      run: the trained model; its files stay as they are.
      latents: float32 `[N, D]`, quantised.
      images: uint8 `[N, 28, 28, 1]`.
      steps: of Adam at 5e-4, falling to 0 by a cosine.
    """
    decoder, params = run.decoder
    optimizer = optax.adam(optax.cosine_decay_schedule(5e-4, steps))

    def loss_fn(params, rows, targets):
        outputs = decoder.apply({"params": params}, rows)
        return ((outputs - to_unit_range(targets)) ** 2).mean()

    def step(params, state, rows, targets):
        gradients = jax.grad(loss_fn)(params, rows, targets)
        updates, state = optimizer.update(gradients, state)
        return optax.apply_updates(params, updates), state

    step = jax.jit(step, compiler_options=compiler_options())
    state, batch_size = optimizer.init(params), min(128, len(images))
    epochs = -(-steps // (len(images) // batch_size))
    batches = [epoch_rows(len(images), batch_size, 0, epoch) for epoch in range(epochs)]
    for rows in np.concatenate(batches)[:steps]:
        params, state = step(params, state, latents[rows], images[rows])
    tuned = Run(run.path)
    tuned.decoder = decoder, jax.device_get(params)
    return tuned


def sheets(images: np.ndarray) -> list[np.ndarray]:
    """Square sheets uint8 of up to 1,024 images [N, 28, 28, 1], the last one padded."""
    count = SHEET**2
    missing = -len(images) % count
    padded = np.concatenate([images, np.zeros((missing, 28, 28, 1), np.uint8)])
    blocks = padded.reshape(-1, SHEET, SHEET, 28, 28).transpose(0, 1, 3, 2, 4)
    return list(blocks.reshape(-1, SHEET * 28, SHEET * 28))


def image_codec(
    kind: str, images: np.ndarray, budget: int
) -> tuple[float, int, np.ndarray] | None:
    """The best quality of a Pillow codec that keeps to a budget.

    Args:
      kind: 'JPEG' or 'WEBP'.
      images: uint8 `[N, 28, 28, 1]`, N a multiple of 1,024 for a fair count.
      budget: bytes an image.

    Returns:
      Bytes an image, the quality setting and the decoded images; None if even the
      lowest setting needs more.
    """
    from PIL import Image

    def encode(level: int) -> list[bytes]:
        made = []
        for sheet in sheets(images):
            buffer = io.BytesIO()
            Image.fromarray(sheet).save(buffer, kind, quality=level, method=4)
            made.append(buffer.getvalue())
        return made

    low, high, best = 0, 100, None
    while low <= high:
        level = (low + high) // 2
        encoded = encode(level)
        size = sum(map(len, encoded)) / len(images)
        if size <= budget:
            low, best = level + 1, (size, level, encoded)
        else:
            high = level - 1
    if best is None:
        return None
    size, level, encoded = best
    decoded = [np.array(Image.open(io.BytesIO(x)).convert("L")) for x in encoded]
    tiles = np.stack(decoded).reshape(-1, SHEET, 28, SHEET, 28).transpose(0, 1, 3, 2, 4)
    return size, level, tiles.reshape(-1, 28, 28, 1)[: len(images)]


def run_missing(
    workdir: pathlib.Path, dimensions: list[int], data: Selection, tuning_steps: int
) -> None:
    """Measures every method and budget that has no file yet.

    Args:
      workdir: holds the runs `latents-<D>`; rows go into its rows/ folder.
      dimensions: the latent widths D.
      data: the images that those runs were made from.
      tuning_steps: of each decoder tuned to quantised latents.
    """
    images, train = data.test.images, data.train.images

    def measure(name: str, budget: int, make: Callable) -> None:
        path = workdir / "rows" / f"{name}.json"
        if path.exists():
            return
        print(name, flush=True)
        made = make()
        row = {"name": name, "method": name.split("-")[0], "budget": budget}
        row |= {"test": len(images)}
        if made is not None:
            size, outputs = made
            row |= {"bytes": size, **quality(images, outputs)}
        files.write_json(path, row)

    components = pca.fit(train, max(dimensions))
    pca_latents = components.encode(train), components.encode(images)
    for dimension in dimensions:
        run = load_run(workdir / f"latents-{dimension}")
        latents = run.encode(train), run.encode(images)
        if dimension == 32:
            measure(
                "float32-32x32",
                128,
                lambda run=run, latents=latents: (128, run.decode(latents[1])),
            )
        for bits in BITS:
            budget = dimension * bits // 8
            if budget not in BUDGETS:
                continue
            size = f"{dimension}x{bits}"
            grid = Grid(latents[0], bits)
            test = grid.values(grid.indices(latents[1]))

            def plain(run=run, test=test, budget=budget):
                return budget, run.decode(test)

            def tuned(run=run, grid=grid, latents=latents, test=test, budget=budget):
                rows = grid.values(grid.indices(latents[0]))
                return budget, tune_decoder(run, rows, train, tuning_steps).decode(test)

            def principal(dimension=dimension, bits=bits, budget=budget):
                rows, test = (x[:, :dimension] for x in pca_latents)
                grid = Grid(rows, bits)
                return budget, components.decode(grid.values(grid.indices(test)))

            measure(f"autoencoder-{size}", budget, plain)
            measure(f"tuned-{size}", budget, tuned)
            measure(f"pca-{size}", budget, principal)
    for kind in ("JPEG", "WEBP"):
        for budget in BUDGETS:

            def codec(kind=kind, budget=budget):
                found = image_codec(kind, images, budget)
                return found and (found[0], found[2] / np.float32(255))

            measure(f"{kind.lower()}-{budget}", budget, codec)


def format_markdown(rows: list[dict]) -> str:
    """The rows as a Markdown table, the best of each budget marked."""
    lines = [
        "| bytes at most | method | bytes an image | MSE | PSNR dB | SSIM |",
        "|---|---|---|---|---|---|",
    ]
    for budget in BUDGETS:
        group = [row for row in rows if row["budget"] == budget]
        group.sort(key=lambda row: row.get("mse", np.inf))
        for place, row in enumerate(group):
            if "mse" not in row:
                lines.append(f"| {budget} | {row['name']} | needs more | - | - | - |")
                continue
            mse = f"{row['mse']:.5f}"
            lines.append(
                f"| {budget} | {row['name']} | {row['bytes']:.1f} | "
                f"{f'**{mse}**' if place == 0 else mse} | {row['psnr']:.2f} | "
                f"{row['ssim']:.4f} |"
            )
    return "\n".join(lines) + "\n"


def draw(rows: list[dict], path: pathlib.Path) -> pathlib.Path:
    """Distortion against bytes: the best of each method at every budget."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(6, 3.8))
        for method in dict.fromkeys(row["method"] for row in rows):
            best = {}
            for row in rows:
                if row["method"] == method and "mse" in row:
                    known = best.get(row["budget"])
                    if known is None or row["mse"] < known["mse"]:
                        best[row["budget"]] = row
            points = [(best[b]["bytes"], best[b]["mse"]) for b in sorted(best)]
            if points:
                axes.plot(*zip(*points, strict=True), "o-", ms=4, label=method)
        axes.set(
            xscale="log",
            yscale="log",
            xlabel="bytes an image",
            ylabel="test MSE",
            xticks=BUDGETS,
            xticklabels=BUDGETS,
        )
        axes.minorticks_off()
        axes.legend()
    return save(figure, path)


def main() -> None:
    """Runs the command of the module's docstring."""
    flags = parse_flags(
        sys.argv,
        __doc__.strip(),
        Flag("workdir", "folder of the study", required=True),
        Flag("decoder", "which of the four decoders", default="model01"),
        Flag("dimensions", "latent widths", default=",".join(map(str, DIMENSIONS))),
        Flag("tuning_steps", "of each decoder tuned to quantised latents", int, 300),
        *matrix.RUN_FLAGS,
        Flag("runs", "make what is missing (--noruns: the table only)", bool, True),
    )
    workdir = pathlib.Path(flags.workdir)
    if flags.runs:
        settings = [f"--decoder={flags.decoder}", *matrix.run_settings(flags)]
        known = map(str, DIMENSIONS)
        dimensions = list(map(int, matrix.names(flags.dimensions, "dimensions", known)))
        runs = {f"latents-{d}": [*settings, f"--latent_dim={d}"] for d in dimensions}
        matrix.run_missing(workdir, runs)
        data = select(make_config(**load_run(workdir / next(iter(runs))).config))
        run_missing(workdir, dimensions, data, flags.tuning_steps)
    rows = [files.read_json(path) for path in sorted(workdir.glob("rows/*.json"))]
    draw(rows, workdir / "equal_bytes.png")
    matrix.write_tables(workdir, "equal_bytes", {"rows": rows}, format_markdown(rows))


if __name__ == "__main__":
    run_command(main)
