"""The published study's other claims, each beside what it is compared with.

  python -m experiments.claims --workdir=W --emnist_archive=gzip.zip    # 9 trainings

Strided convolution against max pooling, transposed convolution against upsampling
and convolution, and denoising beside a median filter and PCA: 400 steps of model01
with the default preset, paired over seeds. Each training leaves one JSON file in W;
one that is there is not trained again. `claims.json` and `claims.md` are made from
those files alone.
"""

import functools
import pathlib
from collections.abc import Sequence

import numpy as np

from emnist_jax.cli.arguments import count
from emnist_jax.cli.command import run_command
from emnist_jax.config import Config, compose, make_config
from emnist_jax.config.compose import select
from emnist_jax.data.selection import Selection
from emnist_jax.devices import parallel
from emnist_jax.models import metrics
from emnist_jax.models.autoencoder import to_unit_range
from emnist_jax.training.step import make_train_step
from experiments import pca, study, tables, training
from experiments.claims_models import Alternative

VARIANTS = {
    "published": {},
    "pooling": {"pooling": True},
    "upsampling": {"upsampling": True},
}
# What the study claims or does, and by what, with so many digits, it is judged.
CLAIMS = (
    ("a strided convolution encodes better than max pooling", "pooling", "mse", 5),
    (
        "a transposed convolution decodes better than upsampling and convolution",
        *("upsampling", "mse", 5),
    ),
    (
        "its error holds no more energy at the checkerboard frequencies",
        *("upsampling", "checkerboard_mse", 6),
    ),
    (
        "nor a greater share of its energy there",
        *("upsampling", "checkerboard", 4),
    ),
)
NOISE = (0.1, 0.2, 0.3)  # standard deviations, of pixels in [0, 1]


def train(
    config: Config, variant: str, data: Selection, steps: int, folder: pathlib.Path
):
    """Trains one variant.

    Args:
      config: all but the architecture and the number of steps.
      variant: a key of `VARIANTS`.
      data: images to train on and to validate with.
      steps: how many.
      folder: for checkpoints and the log.

    Returns:
      The model and its parameters.
    """
    images = data.train.images
    mean_pixel = float(images.mean(dtype=np.float64)) / 255
    plain = compose.autoencoder(config, mean_pixel)
    model = Alternative(config.decoder, plain.output_bias, **VARIANTS[variant])
    optimizer = compose.optimizer(config, steps)
    params = training.train(
        images,
        compose.first_state(config, model, optimizer),
        make_train_step(compose.loss_of(config, model), optimizer),
        compose.validation(config, model, data.validation.images),
        training.Length(steps, config.batch_size, config.seed),
        folder,
    )
    return model, params


def reconstruct(model, params, images: np.ndarray) -> np.ndarray:
    """Reconstructions float32 [N, 28, 28, 1] of images, uint8 or in [0, 1]."""

    def step(params, images):
        return model.apply({"params": params}, to_unit_range(images)).images

    return parallel.map_rows(step, params, images)


def quality(images: np.ndarray, reconstructions: np.ndarray) -> dict[str, float]:
    """Means over images of MSE, PSNR and SSIM."""

    def step(_, rows):
        return metrics.quality(to_unit_range(rows["images"]), rows["reconstructions"])

    rows = {"images": images, "reconstructions": reconstructions}
    values = parallel.map_rows(step, np.zeros(()), rows)
    names = ("mse", "psnr", "ssim")
    return {name: float(values[name].mean(dtype=np.float64)) for name in names}


def checkerboard(images: np.ndarray, reconstructions: np.ndarray) -> float:
    """Part of the error's spectral energy at the frequencies of a checkerboard.

    Those are where stride 2 repeats: half a cycle a pixel along either axis, 55 of
    784 frequencies, 0.070 of the energy of white noise.

    Args:
      images: uint8 `[N, 28, 28, 1]`.
      reconstructions: floats in [0, 1] of the same shape.
    """
    error = reconstructions[..., 0] - images[..., 0] / np.float32(255)
    energy = (np.abs(np.fft.fft2(error.astype(np.float64))) ** 2).mean(axis=0)
    nyquist = energy.shape[0] // 2
    part = energy[nyquist].sum() + energy[:, nyquist].sum() - energy[nyquist, nyquist]
    return float(part / energy.sum())


def denoising(model, params, data: Selection, seed: int) -> dict[str, dict]:
    """Error against the clean test images of what each method makes of noisy ones.

    Returns:
      Mean squared errors by noise and method. The median filter is 3x3; PCA is
      fitted on the training images.
    """
    from scipy.ndimage import median_filter

    clean = data.test.images.astype(np.float32) / 255
    components = pca.fit(data.train.images, 128)
    found = {}
    for noise in NOISE:
        generator = np.random.default_rng([seed, round(1000 * noise)])
        noisy = clean + noise * generator.standard_normal(clean.shape, np.float32)
        noisy = np.clip(noisy, 0, 1)
        latents = components.encode(noisy)
        outputs = {
            "none": noisy,
            "median": median_filter(noisy, (1, 3, 3, 1)),
            "pca32": components.decode(latents[:, :32]),
            "pca128": components.decode(latents),
            "autoencoder": reconstruct(model, params, noisy),
        }
        found[str(noise)] = {
            name: float(((images - clean) ** 2).mean(dtype=np.float64))
            for name, images in outputs.items()
        }
    return found


def measure(config: Config, variant: str, steps: int, folder: pathlib.Path) -> dict:
    """A row: trains a variant and measures it on the test images."""
    data = select(config)
    parallel.check_batch_size(config.batch_size, len(data.train))
    model, params = train(config, variant, data, steps, folder)
    images = data.test.images
    outputs = reconstruct(model, params, images)
    row = {"variant": variant, "seed": config.seed, "steps": steps}
    row |= {"dataset": data.dataset.name, "train": len(data.train)}
    row |= {"test": len(images), **quality(images, outputs)}
    row["checkerboard"] = checkerboard(images, outputs)
    row["checkerboard_mse"] = row["checkerboard"] * row["mse"]
    if variant == "published":
        row["denoising"] = denoising(model, params, data, config.seed)
    return row


def summarise(rows: list[dict]) -> dict:
    """Means, and differences to the published choice, paired over seeds."""
    by_name = {
        variant: {row["seed"]: row for row in rows if row["variant"] == variant}
        for variant in VARIANTS
    }
    cells = []
    for variant, runs in by_name.items():
        cell = {"variant": variant, "n": len(runs)}
        for name in ("mse", "psnr", "ssim", "checkerboard", "checkerboard_mse"):
            values = {seed: row[name] for seed, row in runs.items()}
            base = {seed: row[name] for seed, row in by_name["published"].items()}
            cell |= tables.mean_and_std(name, values.values())
            if variant != "published":
                cell[f"{name}_to_published"] = tables.paired_difference(values, base)
        cells.append(cell)
    noisy = {}
    runs = list(by_name["published"].values())
    for noise in map(str, NOISE):
        noisy[noise] = {
            name: tables.mean_and_std(
                "mse", (r["denoising"][noise][name] for r in runs)
            )
            for name in (runs[0]["denoising"][noise] if runs else ())
        }
    return {"cells": cells, "denoising": noisy}


def verdict(found: dict | None) -> str:
    """What the difference to the published choice says about a claim.

    Args:
      found: from `tables.paired_difference`, alternative less published.
      claimed_sign: that of the difference if the claim holds.
    """
    if found is None:
        return "not enough runs"
    low, high = found["interval_95"]
    if low <= 0 <= high:
        return "not settled: the interval holds 0"
    return "supported" if low > 0 else "contradicted"


def format_markdown(summary: dict) -> str:
    """One table: claim, evidence, verdict; below it the errors of denoising."""
    cells = {cell["variant"]: cell for cell in summary["cells"]}
    rows = []
    for claim, variant, name, digits in CLAIMS:
        found = cells[variant].get(f"{name}_to_published")
        ours, theirs = (
            tables.plus_minus(cells[choice], name, digits)
            for choice in ("published", variant)
        )
        evidence = f"{name} {ours}, with {variant} {theirs}"
        if found:
            evidence += f"; paired {tables.format_difference(found, digits)}"
        rows.append((claim, evidence, verdict(found)))
    for noise, methods in summary["denoising"].items():
        if not methods:
            continue
        best = min(methods, key=lambda name: methods[name]["mse"])
        texts = [f"{k} {tables.plus_minus(v, 'mse', 4)}" for k, v in methods.items()]
        claim = f"the autoencoder denoises (noise {noise}, MSE against clean)"
        result = "best of these" if best == "autoencoder" else f"{best} is better"
        rows.append((claim, ", ".join(texts), result))
    return tables.markdown("claim | evidence | verdict", rows)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command of the module's docstring."""
    parser = study.StudyParser(__doc__, "scipy")
    parser.add_argument("--steps", type=count, default=400, help="of each training")
    parser.add_runs(epochs=None, examples=20000)
    flags = parser.parse_args(argv)
    workdir, measures = pathlib.Path(flags.workdir), {}
    if flags.runs:
        study.claim_folder(workdir, "claims", flags, "steps")
        settings = study.given(flags, *study.SHARED, *study.PATHS)
        for seed in range(flags.seeds):
            for variant in VARIANTS:
                name = f"{variant}-seed{seed}"
                given = make_config(seed=seed, **settings), variant, flags.steps
                measures[name] = functools.partial(measure, *given, workdir / name)
    rows = study.measured(workdir, measures)
    summary = {"rows": rows, **summarise(rows)}
    study.write(workdir / "claims", summary, format_markdown(summary))


if __name__ == "__main__":
    run_command(main)
