"""The main job, top to bottom: data, model, training, export, evaluation, figures."""

import contextlib
import dataclasses
import platform
import sys
import time
import warnings
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from emnist_jax import files, latents, parallel, paths, plots, results, runs
from emnist_jax.checkpoints import StepCheckpoints
from emnist_jax.config import Config
from emnist_jax.data.selection import Selection, select
from emnist_jax.errors import UserError
from emnist_jax.evaluate import evaluate, format_quality
from emnist_jax.interrupts import Interrupted, Interrupts
from emnist_jax.loop import Progress, Trainer
from emnist_jax.models.table import describe, format_table, layer_table
from emnist_jax.monitor import TrainingFailed, format_duration
from emnist_jax.step import make_model
from emnist_jax.transfer import initial_weights


def train_and_evaluate(config: Config) -> dict[str, Any]:
    """Trains, evaluates and exports one autoencoder; resumes where it stopped.

    Args:
      config: all settings.

    Returns:
      The results, as written to the run's `results.json`.

    Raises:
      UserError: data, settings or run folder are wrong, or the training failed.
    """
    signals = Interrupts()
    with contextlib.ExitStack() as stack:
        if config.compilation_cache:
            use_compilation_cache()
        parallel.initialize(config)
        splits = select(config)
        config = dataclasses.replace(config, dataset=splits.dataset.name)
        parallel.check_batch_size(config.batch_size, len(splits.train))
        initial, weights = initial_weights(config)
        source = {
            "train": len(splits.whole_train),
            **splits.dataset.source,
            **weights,
        }
        run = stack.enter_context(runs.open_for_training(config, source))
        _announce(config, splits, run)
        finished = _finished(run)
        if finished:
            _say(f"{run.path} is finished; delete the folder to train again\n")
            _say(format_quality(finished["test"]))
            return finished
        with parallel.ending_with_peers(), signals.noted():
            return _train(config, splits, initial, run, signals)


def use_compilation_cache() -> None:
    """Keeps compiled programs in the user's cache folder, apart for each machine."""
    # Without it, on a full disk say, compiling only takes longer.
    warnings.filterwarnings("ignore", "Error .* persistent compilation cache")
    if jax.config.jax_compilation_cache_dir:  # the user has chosen one
        return
    home = paths.cache_home()
    if home is None:
        return
    names = ("emnist_jax", "xla", platform.node())
    folder = paths.private_folder(home, *names, warn=_warn)
    if folder is not None:
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def _finished(run: runs.Run) -> dict[str, Any] | None:
    """Results of a finished run; None if it is not, or if they are made anew."""
    if not (run.path / "results.json").exists():
        return None
    try:
        record = results.load_results(run.path)
        if record["status"] == "finished":
            format_quality(record["test"])
            return record
    except (UserError, KeyError, TypeError, ValueError) as error:
        reason = error if isinstance(error, UserError) else f"{error!r}"
        _warn(f"results.json is damaged and will be written anew: {reason}")
    return None


def _train(
    config: Config,
    splits: Selection,
    initial: dict[str, Any],
    run: runs.Run,
    signals: Interrupts,
) -> dict[str, Any]:
    started = time.monotonic()
    mean_pixel = float(splits.train.images.mean(dtype=np.float64)) / 255
    model = make_model(config, mean_pixel)
    record = _describe(config, splits, run)
    tensorboard = None
    if config.tensorboard:
        tensorboard = paths.inside(run.path, "tensorboard")
    log = results.MetricsLog(run.path / "metrics.jsonl", tensorboard)
    trainer = Trainer(
        config,
        model,
        splits.train.images,
        splits.validation.images,
        initial,
        StepCheckpoints(run.path / "checkpoints", _warn),
        log,
        signals,
        _say,
    )
    try:
        with log.closing():
            params, progress = trainer.fit()
    except TrainingFailed as failure:
        if parallel.is_writer():
            record |= {"status": failure.status, "error": str(failure)}
            files.write_json(run.path / "results.json", record)
        raise
    try:
        record |= _export_and_evaluate(config, splits, run, params, progress)
        record["timing"]["seconds"] = time.monotonic() - started
        if parallel.is_writer():
            plots.draw_run(run.path)
            parallel.check_interrupts()
            # Last of all: with it, the run is finished.
            files.write_json(run.path / "results.json", record)
    except Interrupted as interruption:
        raise Interrupted(
            interruption.signal_number,
            f"interrupted: training is finished and saved in {run.path}/checkpoints; "
            "the same command goes on with export and evaluation",
        ) from interruption
    if parallel.is_writer():
        _report(record, run)
    parallel.barrier("finished")
    return record


def _export_and_evaluate(
    config: Config, splits: Selection, run: runs.Run, params: Any, progress: Progress
) -> dict[str, Any]:
    """Writes both halves and the latents, then measures what was written."""
    if parallel.is_writer():
        runs.save_model(run, params, config)
    parallel.barrier("model saved")
    started = time.monotonic()
    train = latents.export_split(run, "train", splits.whole_train)
    test_latents = latents.export_split(run, "test", splits.test)
    parallel.barrier("latents exported")
    exported = time.monotonic()
    test = evaluate(run, splits.test.images, test_latents, config.seed)
    evaluated = time.monotonic()
    return {
        "status": "finished",
        "training": {
            "epochs": progress.epoch,
            "best_epoch": progress.best_epoch,
            "best_step": progress.best_step,
            "stopped": progress.stopped,
            "train_loss": progress.best_train_loss,
            "validation_loss": progress.best_validation_loss,
        },
        "test": test,
        "sizes": results.sizes(splits.whole_train.images, train),
        "timing": {
            "training_seconds": progress.seconds,
            "training_images_per_second": progress.images / progress.seconds,
            "export_seconds": exported - started,
            "evaluation_seconds": evaluated - exported,
        },
    }


def _describe(config: Config, splits: Selection, run: runs.Run) -> dict[str, Any]:
    return {
        "schema": results.SCHEMA,
        "name": run.path.name,
        "status": "training",
        "dataset": {
            "name": splits.dataset.name,
            **splits.dataset.source,
            "train": len(splits.train),
            "validation": len(splits.validation),
            "test": len(splits.test),
        },
        "config": dataclasses.asdict(config),
        "model": describe(config.decoder, config.latent_dim),
        "environment": results.environment(),
    }


def _announce(config: Config, splits: Selection, run: runs.Run) -> None:
    steps = len(splits.train) // config.batch_size
    device = jax.devices()[0]
    _say(format_table(layer_table(config.decoder, config.latent_dim)))
    _say("")
    _say(
        f"data    {splits.dataset.source['title']}: {len(splits.train):,} train, "
        f"{len(splits.validation):,} validation, {len(splits.test):,} test images"
    )
    _say(
        f"train   {config.decoder}, preset {config.preset}, seed {config.seed}: at "
        f"most {config.epochs} epochs of {steps} steps = {config.epochs * steps:,} "
        f"steps of {config.batch_size} images"
    )
    _say(f"device  {jax.device_count()} x {device.device_kind} ({device.platform})")
    _say(f"folder  {run.path}\n")


def _report(record: dict[str, Any], run: runs.Run) -> None:
    sizes, timing = record["sizes"], record["timing"]
    _say("")
    _say(format_quality(record["test"]))
    _say("")
    for name, size in sizes.items():
        if name.endswith("bytes"):
            label = f"train {name.removesuffix('_bytes').replace('_', ' ')}"
            _say(f"{label:<24}{size / 2**20:>12.3f} MiB")
    _say(f"{'latents':<24}{sizes['bits_per_pixel']:>12.3f} bits per pixel (float32)")
    _say("")
    _say(
        f"trained in {format_duration(timing['training_seconds'])} "
        f"({timing['training_images_per_second']:,.0f} images/s); all of it lies in "
        f"{run.path}"
    )


def _say(text: str) -> None:
    if parallel.is_writer():
        tqdm.write(text)  # a progress bar makes room for it
        sys.stdout.flush()


def _warn(text: str) -> None:
    tqdm.write(f"warning: {text}", file=sys.stderr)
