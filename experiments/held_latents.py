"""What each latent is worth: k of them held at zero from the start, dead revived.

  python -m experiments.held_latents --workdir=W \
      --emnist_archive=gzip.zip                     # 16 trainings of 840 steps a seed

Where the seeds of the decoder comparison happen to lose latents, here they are taken
away on purpose: if each costs what the regression over seeds says, dead latents are
the cause. The other way round: 'revived' makes every dead latent half of a living one
after each 100 steps, with 'linear' ones none can die.
Each training leaves one JSON file in W; one that is there is not trained again.
`held_latents.json`, `.md` and `.png` are made from those files alone.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from emnist_jax.cli.arguments import comma_separated, count
from emnist_jax.cli.command import run_command
from emnist_jax.config import Config, compose, make_config
from emnist_jax.data.selection import Selection
from emnist_jax.devices import parallel
from emnist_jax.models.autoencoder import Autoencoder, to_unit_range
from emnist_jax.runs.plots import STYLE, save
from emnist_jax.training.health import TrainingFailed
from emnist_jax.training.step import Step, TrainState, make_train_step
from experiments import study, tables, training
from experiments.claims import quality
from experiments.compare_decoders import dead_latents_effect, format_effect
from experiments.comparison_figures import COLORS

HELD = (0, 4, 8, 12, 16, 19, 24)
REVIVAL = 100  # steps from one revival of dead latents to the next
VARIANTS = {
    "published": ["0 held", "revived", "linear", *(f"{k} held" for k in HELD[1:])],
    "best": [f"{k} held" for k in HELD],
}


class HeldAutoencoder(Autoencoder):
    """An autoencoder whose first latents are zero, whatever the image.

    Attributes:
      held: how many; their weights get no gradient, so they stay as they began.
    """

    held: int = 0

    def encode(self, images: jax.Array) -> jax.Array:
        """Latents [B, latent_dim] of `images` [B, H, W, 1], uint8 or in [0, 1]."""
        return super().encode(images) * (np.arange(self.latent_dim)[None] >= self.held)


def revive(state: TrainState, latents: jax.Array) -> TrainState:
    """Makes every dead latent half of a living one; the output stays as it is.

    Moments of the optimiser are copied along: with none, the first steps of Adam are
    so long that most of the revived die again.

    Args:
      state: of an autoencoder.
      latents: `[B, latent_dim]` of this device's images; dead is what they all share.
    """
    above = jax.lax.pmax(latents.max(axis=0), parallel.AXIS)
    alive = above > jax.lax.pmin(latents.min(axis=0), parallel.AXIS)
    number = jnp.arange(alive.size)
    living = jnp.argsort(~alive)[(jnp.cumsum(~alive) - 1) % jnp.maximum(alive.sum(), 1)]
    source = jnp.where(alive | ~alive.any(), number, living)
    moved = (source != number)[:, None]

    def copy(path: tuple, leaf: jax.Array) -> jax.Array:
        names = jax.tree_util.keystr(path, simple=True, separator="/")
        if "encoder/latent/" in names:
            return leaf[..., source]
        if "decoder/dense/kernel" not in names:
            return leaf
        rows = leaf[source]
        if not names.startswith("params/"):  # of a moment
            return rows
        share = jax.random.uniform(
            jax.random.key(0), leaf.shape, leaf.dtype, 0.25, 0.75
        )
        share = share * moved
        given = jnp.zeros_like(leaf).at[source].add(share * rows)
        return jnp.where(moved, share * rows, leaf - given)

    return jax.tree_util.tree_map_with_path(copy, state)


def reviving(train_step: Step, model: Autoencoder) -> Step:
    """The step, that revives dead latents after every `REVIVAL` of them."""

    def step(state: TrainState, images: jax.Array) -> tuple[TrainState, Any]:
        def revived(state):
            made = model.apply({"params": state.params}, to_unit_range(images))
            return revive(state, made.latents)

        state, metrics = train_step(state, images)
        due = state.step % REVIVAL == 0
        return jax.lax.cond(due, revived, lambda state: state, state), metrics

    return step


def train(
    config: Config, variant: str, data: Selection, steps: int, folder: pathlib.Path
) -> tuple[Autoencoder, Any]:
    """Trains one variant: its model and parameters."""
    images = data.train.images
    if variant == "linear":
        config = dataclasses.replace(config, latent_activation="linear")
    plain = compose.autoencoder(config, float(images.mean(dtype=np.float64)) / 255)
    fields = {name: getattr(plain, name) for name in Autoencoder.__annotations__}
    held = int(variant.split()[0]) if variant.endswith("held") else 0
    model = HeldAutoencoder(**fields, held=held)
    optimizer = compose.optimizer(config, steps)
    train_step = make_train_step(compose.loss_of(config, model), optimizer)
    params = training.train(
        images,
        compose.first_state(config, model, optimizer),
        reviving(train_step, model) if variant == "revived" else train_step,
        compose.validation(config, model, data.validation.images),
        training.Length(steps, config.batch_size, config.seed),
        folder,
    )
    return model, params


def measure(config: Config, variant: str, steps: int, folder: pathlib.Path) -> dict:
    """Trains a variant and measures it on the test images.

    Returns:
      The row of the results; without measurements if the training failed.
    """
    data = compose.select(config)
    parallel.check_batch_size(config.batch_size, len(data.train))
    row = {name: getattr(config, name) for name in ("preset", "decoder", "seed")}
    row |= {"variant": variant, "steps": steps}
    try:
        model, params = train(config, variant, data, steps, folder)
    except TrainingFailed as error:
        return row | {"failed": str(error)}
    images = data.test.images

    def step(params, images):
        made = model.apply({"params": params}, to_unit_range(images))
        return {"latents": made.latents, "images": made.images}

    found = parallel.map_rows(step, params, images)
    active = int((np.ptp(found["latents"], axis=0) > 0).sum())
    return row | {"active_latents": active, **quality(images, found["images"])}


def summarise(rows: list[dict]) -> dict:
    """Means over seeds of every variant, and what a latent is worth in each preset."""
    good = [row for row in rows if "failed" not in row]
    cells = []
    for preset, variants in VARIANTS.items():
        base = {}
        for variant in variants:
            key = preset, variant
            runs = [row for row in good if (row["preset"], row["variant"]) == key]
            tried = sum((row["preset"], row["variant"]) == key for row in rows)
            errors = {row["seed"]: row["mse"] for row in runs}
            if variant == variants[0]:
                base = errors
            both = sorted(errors.keys() & base.keys())
            cell = {"preset": preset, "variant": variant, "n": len(runs)}
            cell["failed"] = tried - len(runs)
            for name in ("active_latents", "mse", "ssim"):
                cell |= tables.mean_and_std(name, (row[name] for row in runs))
            ratios = (errors[seed] / base[seed] for seed in both)
            cells.append(cell | tables.mean_and_std("ratio", ratios))
    worth = {}
    for preset in VARIANTS:
        held = [r for r in good if r["preset"] == preset and "held" in r["variant"]]
        if held and (found := dead_latents_effect(held)):
            worth[preset] = found
    return {"cells": cells, "worth": worth}


def format_markdown(summary: dict) -> str:
    """The summary as a Markdown table and a sentence a preset."""
    digits = {"active_latents": 1, "mse": 5, "ratio": 3, "ssim": 4}
    rows = (
        [cell[name] for name in ("preset", "variant", "n", "failed")]
        + [tables.plus_minus(cell, name, n) for name, n in digits.items()]
        for cell in summary["cells"]
    )
    headings = "preset | latents | n | failed | active | test MSE | to 0 held | SSIM"
    parts = [tables.markdown(headings, rows)]
    for preset, found in summary["worth"].items():
        effect = format_effect(found)
        parts.append(
            f"{preset}: each latent that is missing, held or dead, {effect}.\n"
        )
    return "\n".join(parts)


def figure(rows: list[dict]) -> plt.Figure:
    """Test MSE against the latents that are active at the end, a dot a training."""
    good = [row for row in rows if "failed" not in row]
    with plt.rc_context(STYLE):
        result, axes = plt.subplots(figsize=(6, 4), layout="constrained")
        for preset in VARIANTS:
            for marker, kind in (("o", "held"), ("^", "revived"), ("x", "linear")):
                runs = [
                    (row["active_latents"], row["mse"])
                    for row in good
                    if row["preset"] == preset and row["variant"].endswith(kind)
                ]
                if runs:
                    label = preset if kind == "held" else f"{preset}, {kind}"
                    color = COLORS[preset]
                    axes.plot(*np.transpose(runs), marker, color=color, label=label)
        axes.set(xlabel="active latents", ylabel="test MSE", yscale="log")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend(frameon=False)
    return result


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command of the module's docstring."""
    parser = study.StudyParser(__doc__, "scipy")
    presets = comma_separated(known=VARIANTS)
    add = parser.add_argument
    add("--presets", type=presets, default=list(VARIANTS), help="comma-separated")
    add("--decoder", default="model01", help="which of the four")
    add("--steps", type=count, default=840, help="of each training")
    parser.add_runs(seeds=1, epochs=None)
    flags = parser.parse_args(argv)
    workdir, measures = pathlib.Path(flags.workdir), {}
    if flags.runs:
        study.claim_folder(workdir, "held_latents", flags, "steps", "decoder")
        settings = study.given(flags, *study.SHARED, *study.PATHS, "decoder")
        for seed in range(flags.seeds):
            for preset in flags.presets:
                config = make_config(preset=preset, seed=seed, **settings)
                for variant in VARIANTS[preset]:
                    name = f"{preset}-{variant.replace(' ', '-')}-seed{seed}"
                    given = config, variant, flags.steps, workdir / name
                    measures[name] = functools.partial(measure, *given)
    rows = study.measured(workdir, measures)
    summary = {"rows": rows, **summarise(rows)}
    save(figure(rows), workdir / "held_latents.png")
    study.write(workdir / "held_latents", summary, format_markdown(summary))


if __name__ == "__main__":
    run_command(main)
