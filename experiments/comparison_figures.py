"""Figures of the decoder comparison, drawn from its rows."""

import pathlib

import matplotlib.pyplot as plt
import numpy as np

from emnist_jax.runs.plots import STYLE, image_grid, load_examples, save

COLORS = {"published": "#e6550d", "best": "#3182bd", "robust": "#74c476"}


def draw(
    workdir: pathlib.Path, rows: list[dict], published: dict | None
) -> list[pathlib.Path]:
    """Writes the four-panel comparison, loss against active latents, and images.

    Args:
      workdir: holds the runs; `comparison.png`, `active_latents.png` and, if the runs'
        example images are there, `reconstructions.png` go here.
      rows: from `compare_decoders.collect`.
      published: the study's own figures by decoder, or None.
    """
    rows = [row for row in rows if row["status"] == "finished"]
    if not rows:
        return []
    figures = {
        "comparison": four_panels(rows, published),
        "active_latents": loss_against_latents(rows),
    }
    first = min(row["seed"] for row in rows)  # runs of one seed show the same images
    chosen = [row for row in rows if row["seed"] == first]
    if all((workdir / row["run"] / "figures").is_dir() for row in chosen):
        figures["reconstructions"] = reconstructions(workdir, chosen)
    return [save(figure, workdir / f"{name}.png") for name, figure in figures.items()]


def reconstructions(workdir: pathlib.Path, rows: list[dict]) -> plt.Figure:
    """Ten random test images above what each run makes of them, its MSE beside it."""
    lines = []
    for row in sorted(rows, key=lambda row: (row["decoder"], row["preset"])):
        examples = load_examples(workdir / row["run"])
        chosen = examples["group"] == "random"
        if not lines:
            lines.append(("original", examples["original"][chosen]))
        name = f"{row['decoder']}, {row['preset']}\nMSE {row['mse']:.5f}"
        lines.append((name, examples["autoencoder"][chosen]))
    return image_grid(lines)


def four_panels(rows: list[dict], published: dict | None) -> plt.Figure:
    """Losses, MSE, SSIM and PSNR by decoder: every seed a dot, the mean a line."""
    decoders = sorted({row["decoder"] for row in rows})
    presets = sorted({row["preset"] for row in rows})
    panels = {
        "training loss, mean over the last epoch (hollow: validation)": (
            "train_loss",
            "validation_loss",
        ),
        "test MSE (hollow: decoder only)": ("mse", "mse_decoder_only"),
        "test SSIM (hollow: decoder only)": ("ssim", "ssim_decoder_only"),
        "test PSNR, dB (hollow: decoder only)": ("psnr", "psnr_decoder_only"),
    }
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(2, 2, figsize=(8, 6))
        for axis, (title, names) in zip(axes.flat, panels.items(), strict=True):
            for k, preset in enumerate(presets):
                color = COLORS.get(preset, f"C{k + 2}")
                for x, decoder in enumerate(decoders):
                    for j, name in enumerate(names):
                        values = [
                            row[name]
                            for row in rows
                            if (row["decoder"], row["preset"]) == (decoder, preset)
                        ]
                        at = x + (k - (len(presets) - 1) / 2) * 0.35 + (j - 0.5) * 0.12
                        face = "none" if j else color
                        axis.scatter(
                            [at] * len(values),
                            values,
                            s=16,
                            edgecolors=color,
                            facecolors=face,
                        )
                        if values:
                            mean = np.mean(values)
                            axis.plot([at - 0.06, at + 0.06], [mean] * 2, color=color)
                axis.plot([], [], "o", color=color, label=preset)
            key = "validation_loss" if names[0] == "train_loss" else names[0]
            if published and key in published[decoders[0]]:
                values = [published[d][key] for d in decoders]
                label = "published study (one run, ten images)"
                axis.plot(range(len(decoders)), values, "kx", ms=5, label=label)
            axis.set_xticks(range(len(decoders)), decoders)
            axis.set_title(title, fontsize=9)
        names = axes[0, 1].get_legend_handles_labels()
        figure.legend(*names, loc="lower center", ncols=len(presets) + 1)
        figure.tight_layout(rect=(0, 0.04, 1, 1))
    return figure


def loss_against_latents(rows: list[dict]) -> plt.Figure:
    """Test MSE of every run against the number of latents that are not dead."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(5, 3.4))
        markers = dict(zip(sorted({r["decoder"] for r in rows}), "osv^", strict=False))
        for row in rows:
            color = COLORS.get(row["preset"], "C2")
            marker = markers[row["decoder"]]
            axes.scatter(row["active_latents"], row["mse"], c=color, marker=marker)
        for name, marker in markers.items():
            axes.plot([], [], marker, color="grey", label=name)
        for name in sorted({row["preset"] for row in rows}):
            axes.plot([], [], "s", color=COLORS.get(name, "C2"), label=name)
        axes.set(xlabel="active latents", ylabel="test MSE")
        axes.legend(fontsize=7)
    return figure
