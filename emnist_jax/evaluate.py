"""Evaluation on the whole test set: `python -m emnist_jax.evaluate --run=RUN`.

Repeats the evaluation of a finished run without training: the autoencoder as a
whole, and the decoder alone on the exported latents, each read from its own files.
"""

import argparse
import dataclasses
import functools
import os
import pathlib
import re
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from emnist_jax.cli.arguments import Parser, reading_flags, reading_options
from emnist_jax.cli.command import run_command
from emnist_jax.cli.console import doing
from emnist_jax.cli.errors import UserError
from emnist_jax.config import Config, compose, stored_config
from emnist_jax.data import own
from emnist_jax.data.splits import Split
from emnist_jax.devices import parallel, processes
from emnist_jax.latents import export_latents
from emnist_jax.models import metrics
from emnist_jax.models.autoencoder import to_unit_range
from emnist_jax.runs import Run, load_run, plots
from emnist_jax.storage import files, paths, results, shipped
from emnist_jax.storage.arrays import check_latents, format_size, write_archive

PATHS = ("autoencoder", "decoder_only")
_WRITTEN = ("latents", "figures")


def evaluate(
    run: Run,
    images: np.ndarray,
    latents: np.ndarray,
    seed: int,
    figures: bool = True,
    out: pathlib.Path | None = None,
) -> dict[str, Any]:
    """Measures a run on images, and writes what its figures are drawn from.

    `figures/test.npz` holds every image's MSE, PSNR and SSIM for both paths, and
    `figures/examples.npz` originals and reconstructions of ten random, the ten best
    and the ten worst images.

    Args:
      run: the trained model.
      images: uint8 `[N, H, W, 1]`.
      latents: float32 `[N, latent_dim]`, exported from the same images.
      seed: chooses the ten random images.
      figures: whether to write those two files.
      out: whose figures/ folder gets them; None is the run.

    Returns:
      The 'test' part of the results (`results.py`).

    Raises:
      UserError: images and latents are not of one data set, or the two halves not of
        one size.
    """
    (encoder, encoder_params), (decoder, decoder_params) = run.encoder, run.decoder
    if encoder.image_size != decoder.image_size:
        raise UserError(
            f"{run.path}: its encoder is of {format_size(encoder.image_size)} pixels, "
            f"its decoder of {format_size(decoder.image_size)}"
        )
    latents = check_latents(latents, encoder.latent_dim, "test latents")
    if len(images) != len(latents):
        raise UserError(
            f"{len(latents)} latents for {len(images)} test images; export them again"
        )
    params = {"encoder": encoder_params, "decoder": decoder_params}
    rows = {"images": images, "latents": latents}
    step = evaluation_step(encoder, decoder)
    values = parallel.map_rows(step, params, rows, "evaluation")
    difference = values.pop("difference")
    summary: dict[str, Any] = {path: _summary(values[path]) for path in PATHS}
    summary["largest_difference"] = float(difference.max())
    summary["active_latents"] = int((np.ptp(latents, axis=0) > 0).sum())
    chosen = np.random.default_rng(seed).choice(
        len(images), min(10, len(images)), replace=False
    )
    summary["published_protocol"] = _published_protocol(values, images, chosen)
    if figures and processes.is_writer():
        folder = paths.inside(out or run.path, "figures")
        for name, arrays in _figure_data(run, images, latents, values, chosen).items():
            write_archive(folder / f"{name}.npz", arrays)
    return summary


def _summary(values: dict[str, np.ndarray]) -> dict[str, float]:
    means = {k: float(v.mean(dtype=np.float64)) for k, v in values.items()}
    mean_mse = jnp.asarray(means["mse"])
    return {
        **means,
        "mse_std": float(values["mse"].std(dtype=np.float64)),
        "psnr_of_mean_mse": float(metrics.psnr(mean_mse)),
    }


def _published_protocol(
    values: dict[str, dict], images: np.ndarray, chosen: np.ndarray
) -> dict[str, Any]:
    """Ten images, PSNR with each image's own range, as the published study does it."""
    peaks = np.ptp(images[chosen].reshape(len(chosen), -1), axis=1) / np.float32(255)
    protocol: dict[str, Any] = {"images": [int(i) for i in chosen]}
    for path in PATHS:
        mse = values[path]["mse"][chosen]
        protocol[path] = {
            "mse": float(mse.mean()),
            "ssim": float(values[path]["ssim"][chosen].mean()),
            "psnr": float(metrics.psnr(mse, np.maximum(peaks, 1 / 255)).mean()),
        }
    return protocol


@functools.cache
def evaluation_step(encoder: Any, decoder: Any) -> Callable:
    """What measures a batch of images and latents, for `parallel.map_rows`."""

    def step(params: dict, rows: dict[str, jax.Array]) -> dict[str, Any]:
        targets = to_unit_range(rows["images"])
        latents = encoder.apply({"params": params["encoder"]}, targets)
        whole = decoder.apply({"params": params["decoder"]}, latents)
        alone = decoder.apply({"params": params["decoder"]}, rows["latents"])
        return {
            "autoencoder": metrics.quality(targets, whole),
            "decoder_only": metrics.quality(targets, alone),
            "difference": jnp.abs(whole - alone).max(axis=(1, 2, 3)),
        }

    return step


def _figure_data(
    run: Run,
    images: np.ndarray,
    latents: np.ndarray,
    values: dict[str, dict],
    chosen: np.ndarray,
) -> dict[str, dict[str, np.ndarray]]:
    order = np.argsort(values["autoencoder"]["mse"], kind="stable")
    rows = np.concatenate([chosen, order[:10], order[::-1][:10]])
    kinds = ["random", "best", "worst"]
    groups = np.repeat(kinds, [len(chosen), len(order[:10]), len(order[:10])])

    # Streams of one batch: they are this process' alone, no other one is here.
    def decode(batch: np.ndarray) -> np.ndarray:
        (reconstructions,) = run.decode_batches([batch])
        return np.round(255 * reconstructions).astype(np.uint8)

    (encoded,) = run.encode_batches([images[rows]])
    per_image = {
        f"{path}_{name}": values[path][name]
        for path in PATHS
        for name in ("mse", "psnr", "ssim")
    }
    examples = {
        "index": rows,
        "group": groups,
        "original": images[rows],
        "autoencoder": decode(encoded),
        "decoder_only": decode(latents[rows]),
        "mse": values["autoencoder"]["mse"][rows],
    }
    return {"test": per_image, "examples": examples}


def format_quality(test: dict[str, Any], latent_dim: int) -> str:
    """What a reader needs of the 'test' part of the results, a line a figure."""
    quality = test["autoencoder"]
    dead = latent_dim - test["active_latents"]
    return (
        f"MSE           {quality['mse']:>9.5f}\n"
        f"PSNR          {quality['psnr']:>9.2f} dB\n"
        f"SSIM          {quality['ssim']:>9.4f}\n"
        f"dead latents  {dead:>9} of {latent_dim}"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Evaluates a finished run again and rewrites its results and figures."""
    parser = Parser(
        "Evaluates a run again, without training, on the test images it was made for."
    )
    add = parser.add_argument
    add("--run", required=True, help="the run's folder, or pretrained/NAME")
    add("--images", help="test images of your own, in any form (docs/data.md)")
    add("--dataset", help="test images of another data set [default: the run's]")
    add("--data_dir", help="where tfds keeps prepared data sets [default: the run's]")
    add("--emnist_archive", help="copy of EMNIST in any form [default: the run's]")
    add("--out", help="new folder for results and figures [default: the run's]")
    reading_flags(add)
    flags = parser.parse_args(argv)
    started = time.monotonic()
    run = load_run(flags.run, flag="--run")
    out = _output(run, flags.out)
    if shipped.holds(run.path) and not (flags.images or flags.dataset):
        raise UserError(f"--run={flags.run}: name images with --images or --dataset")
    record, config = results.load_results(run.path), _config(run)
    with doing("reading images"):
        test, source = _test_images(flags, config)
    images = test.images
    made_from = record.get("dataset") or source  # an imported run has none yet
    same = all(made_from.get(key) == value for key, value in source.items())
    if not same and not flags.dataset and not flags.images:
        raise UserError(
            f"--run={flags.run}: was made from {_short(made_from)}, but the data "
            f"found is {_short(source)}; name the right --emnist_archive, or others to "
            "test on: --dataset, --images"
        )
    if test.image_size != run.image_size:
        raise UserError(
            f"--run={flags.run}: is of {format_size(run.image_size)} pixels, but the "
            f"images of {source['name']} have {format_size(test.image_size)}"
        )
    exported = export_latents(run, {"test": test}, out) if same else {}
    latents = exported["test"] if same else run.encode(images)
    record["test"] = evaluate(run, images, latents, config.seed, same, out)
    found = {**source, "image_size": [*test.image_size], "test": len(images)}
    record["dataset"] = (made_from if same else {}) | found
    seconds = time.monotonic() - started
    record["timing"] = (record.get("timing") or {}) | {"evaluation_seconds": seconds}
    # Figures on other images stand beside the run's own results.
    name = "results" if same else f"results-{source['name'].replace('/', '-')}"
    files.write_json(out / f"{name}.json", record)
    if same:
        with doing("drawing figures"):
            plots.draw_run(run.path, out)
    print(f"{record['dataset']['title']}, {len(images):,} test images:\n")
    print(format_quality(record["test"], run.latent_dim))
    print(f"\nmore figures: {out / name}.json")


def _test_images(
    flags: argparse.Namespace, config: Config
) -> tuple[Split, dict[str, Any]]:
    """The images that the flags name, else the run's, and facts of their source."""
    if flags.images is not None:
        if flags.dataset is not None:
            raise UserError(f"--images={flags.images}: give it or --dataset, not both")
        return own.load_test(flags.images, **reading_options(flags))
    given = {n: getattr(flags, n) for n in ("dataset", "data_dir", "emnist_archive")}
    given = {name: value for name, value in given.items() if value is not None}
    if flags.dataset:
        given["images"] = None
    found = compose.select(dataclasses.replace(config, **given))
    return found.test, {"name": found.dataset.name, **found.dataset.source}


def _output(run: Run, out: str | None) -> pathlib.Path:
    """The folder to write to: the run, or one that holds nothing but such outputs."""
    if out is None:
        if shipped.holds(run.path):
            raise UserError(
                f"--run={run.path}: comes with the package and stays as it is; name a "
                "folder for the results with --out=FOLDER"
            )
        folders = (run.path, *(run.path / name for name in _WRITTEN))
        if all(os.access(f, os.W_OK) for f in folders if f.exists()):
            return run.path
        raise UserError(
            f"--run={run.path}: cannot be written; name a folder for the results "
            "with --out=FOLDER"
        )
    folder = pathlib.Path(out)
    try:
        names = os.listdir(folder) if os.path.lexists(folder) else []
    except OSError as error:
        raise UserError(f"--out={out}: {error.strerror}; name a new folder") from error
    earlier = [n for n in names if re.fullmatch(r"results(-[a-z-]+)?\.json", n)]
    for name in names:
        if not earlier or name not in (*earlier, *_WRITTEN):
            raise UserError(f"--out={out}: holds {name}; name a new folder")
    return folder


def _config(run: Run) -> Config:
    settings = run.config
    try:
        return stored_config(settings)
    except UserError as error:  # damaged, or of another version
        raise UserError(f"{run.path / 'config.json'}: {error}") from error


def _short(source: dict[str, Any]) -> str:
    digest = source.get("archive_sha256") or source.get("images_sha256")
    return f"{source.get('name')} (sha256 {digest})"


if __name__ == "__main__":
    run_command(main)
