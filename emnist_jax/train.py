"""The main job, top to bottom: data, model, training, export, evaluation, figures."""

import contextlib
import dataclasses
import pathlib
import platform
import time
import warnings
from typing import Any

import jax
import numpy as np

from emnist_jax import runs
from emnist_jax.cli.console import doing, format_duration, say, warn
from emnist_jax.cli.errors import UserError
from emnist_jax.cli.interrupts import Interrupted, Interrupts
from emnist_jax.config import Config, compose
from emnist_jax.data.selection import Selection
from emnist_jax.devices import processes
from emnist_jax.evaluate import evaluate, format_quality
from emnist_jax.latents import export_latents
from emnist_jax.models.table import Layer, format_table
from emnist_jax.runs import plots
from emnist_jax.runs.transfer import initial_weights
from emnist_jax.storage import files, paths, results
from emnist_jax.storage.checkpoints import StepCheckpoints
from emnist_jax.training.feed import lives_on_device, make_feed
from emnist_jax.training.health import TrainingFailed
from emnist_jax.training.loop import Progress, fit
from emnist_jax.training.profiler import profiled
from emnist_jax.training.step import make_train_step


def train_and_evaluate(config: Config) -> dict[str, Any]:
    """Trains, evaluates and exports one autoencoder; resumes where it stopped.

    Args:
      config: all settings.

    Returns:
      The results, as written to the run's `results.json`.

    Raises:
      UserError: data, settings or run folder are wrong, or the training failed.
    """
    with contextlib.ExitStack() as stack:
        if config.compilation_cache:
            use_compilation_cache()
        if config.distributed:
            processes.initialize(
                config.coordinator_address, config.num_processes, config.process_id
            )
        processes.check_fork()  # starts JAX as is best for a command
        with processes.failing_together():
            with doing("reading images"):
                splits = compose.select(config)
            config = dataclasses.replace(config, dataset=splits.dataset.name)
            training = compose.training(config, splits)
            initial, origin = initial_weights(
                config.init_from, config.freeze, training.architecture
            )
            size = splits.train.image_size
            source = {"train": len(splits.whole_train), "image_size": size}
            source |= splits.dataset.source | origin
            run = stack.enter_context(
                runs.open_for_training(
                    pathlib.Path(config.workdir) / config.name,
                    training.facts["config"],
                    source,
                )
            )
        runs.expect_shared(run)
        _announce(config, splits, run, training.table)
        if finished := _finished(run):
            return finished
        record = results.record(run.path.name, "training", **training.facts)
        with processes.ending_with_peers(), Interrupts().noted():
            return _run(training, splits, initial, run, record)


def _run(
    training: compose.Training,
    splits: Selection,
    initial: dict[str, Any],
    run: runs.Run,
    record: dict[str, Any],
) -> dict[str, Any]:
    """Trains, exports, measures and reports; returns the finished record."""
    started = time.monotonic()
    try:
        params, progress = _train(training, splits.train.images, initial, run)
    except TrainingFailed as failure:
        if processes.is_writer():
            record |= {"status": failure.status, "error": str(failure)}
            files.write_json(run.path / "results.json", record)
        raise
    try:
        if processes.is_writer():
            runs.save_model(run, params, training.architecture)
        processes.barrier("model saved")
        seed = record["config"]["seed"]
        record |= _export_and_evaluate(splits, run, progress, seed)
        record["timing"]["seconds"] = time.monotonic() - started
        if processes.is_writer():
            with doing("drawing figures"):
                plots.draw_run(run.path)
            processes.check_interrupts()
            # Last of all: with it, the run is finished.
            files.write_json(run.path / "results.json", record)
    except Interrupted as interruption:
        raise Interrupted(
            interruption.signal_number,
            f"interrupted: training is finished and saved in {run.path}/checkpoints; "
            "the same command goes on with export and evaluation",
        ) from interruption
    _report(record, run)
    processes.barrier("finished")
    return record


def _train(
    training: compose.Training,
    images: np.ndarray,
    initial: dict[str, Any],
    run: runs.Run,
) -> tuple[Any, Progress]:
    """Trains in the run's folder; returns the best parameters and how it went."""
    with doing("compiling"):
        state = training.first_state(initial)
    train_step = make_train_step(training.loss, training.optimizer)
    on_device = lives_on_device(training.placement, images)
    step, batches = make_feed(train_step, images, training.rows, on_device)
    checkpoints = StepCheckpoints(run.path / "checkpoints", warn)
    tensorboard = None
    if training.tensorboard:
        tensorboard = paths.inside(run.path, "tensorboard")
    with contextlib.ExitStack() as stack:
        log = results.MetricsLog(run.path / "metrics.jsonl", tensorboard)
        stack.enter_context(log.closing())
        if training.profile:
            step = stack.enter_context(profiled(step, run.path / "profile"))
        validate, plan = training.validate, training.plan
        return fit(state, step, batches, validate, checkpoints, log, plan)


def _export_and_evaluate(
    splits: Selection, run: runs.Run, progress: Progress, seed: int
) -> dict[str, Any]:
    """Writes the latents, then measures what was written."""
    started = time.monotonic()
    found = export_latents(run, {"train": splits.whole_train, "test": splits.test})
    exported = time.monotonic()
    test = evaluate(run, splits.test.images, found["test"], seed)
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
        "sizes": results.sizes(splits.whole_train.images, found["train"]),
        "timing": {
            "training_seconds": progress.seconds,
            "training_images_per_second": progress.examples / progress.seconds,
            "export_seconds": exported - started,
            "evaluation_seconds": time.monotonic() - exported,
        },
    }


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
    folder = paths.private_folder(home, *names, warn=warn)
    if folder is not None:
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def _finished(run: runs.Run) -> dict[str, Any] | None:
    """Shows and returns a finished run's results; None if it is not, or made anew."""
    if not (run.path / "results.json").exists():
        return None
    try:
        record = results.load_results(run.path)
        if record["status"] != "finished":
            return None
        quality = format_quality(record["test"], run.config["latent_dim"])
    except (UserError, KeyError, TypeError, ValueError) as error:
        reason = error if isinstance(error, UserError) else f"{error!r}"
        warn(f"results.json is damaged and will be written anew: {reason}")
        return None
    say(f"{run.path} is finished; delete the folder to train again\n\n{quality}")
    return record


def _announce(
    config: Config, splits: Selection, run: runs.Run, table: list[Layer]
) -> None:
    steps = len(splits.train) // config.batch_size
    device = jax.devices()[0]
    say(format_table(table))
    say("")
    say(
        f"data    {splits.dataset.source['title']}: {len(splits.train):,} train, "
        f"{len(splits.validation):,} validation, {len(splits.test):,} test images"
    )
    say(
        f"train   {config.decoder}, preset {config.preset}, seed {config.seed}: "
        f"{config.epochs} epochs of {steps} steps of {config.batch_size} images"
    )
    say(f"device  {jax.device_count()} x {device.device_kind} ({device.platform})")
    say(f"folder  {run.path}\n")


def _report(record: dict[str, Any], run: runs.Run) -> None:
    sizes, timing = record["sizes"], record["timing"]
    mib = {name: size / 2**20 for name, size in sizes.items()}
    say(f"\n{record['dataset']['test']:,} test images")
    say(format_quality(record["test"], record["config"]["latent_dim"]))
    say(f"\n{sizes['images']:,} training images")
    say(f"as uint8      {mib['images_uint8_bytes']:>9.3f} MiB")
    say(f"as float32    {mib['images_float32_bytes']:>9.3f} MiB")
    say(
        f"as latents    {mib['latents_bytes']:>9.3f} MiB, "
        f"{sizes['bits_per_pixel']:.3f} bits per pixel (float32)"
    )
    say(
        f"\ntrained in {format_duration(timing['training_seconds'])} "
        f"({timing['training_images_per_second']:,.0f} images/s); weights, latents, "
        f"figures and all results lie in\n{run.path}"
    )
