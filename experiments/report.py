"""One HTML page of everything a folder of studies holds.

  python -m experiments.report --workdir=W [--runs=RUN,RUN...]

Finds the tables (`comparison.md`, `ablations.md`, `claims.md`, `probes.md`,
`reuse.md`, `equal_bytes.md`) and figures of the studies anywhere in W, and shows the
quality, sizes, settings and reconstructions of the runs that are named. Writes
`report.html` into W: one file that needs no network and no other file.
"""

import pathlib
import shlex
import sys

from emnist_jax import files, plots, results
from emnist_jax.config import make_config
from emnist_jax.errors import UserError, run_command
from emnist_jax.flags import Flag, parse_flags
from emnist_jax.paths import check_output
from experiments import matrix, report_page

# Pattern of the table, heading, and the figures beside it with their captions.
STUDIES = (
    (
        "comparison.md",
        "The four decoders",
        {
            "comparison.png": "Every seed a dot, the mean of each decoder a line",
            "active_latents.png": "Test MSE against the latents that are not dead",
            "reconstructions.png": "Test images and what one run of each makes of them",
        },
    ),
    ("ablations.md", "What each setting is worth, on validation images", {}),
    ("claims.md", "The published study's other claims", {}),
    (
        "equal_bytes.md",
        "Equal bytes",
        {"equal_bytes.png": "Distortion against bytes an image"},
    ),
    (
        "probes.md",
        "What the latents keep",
        {"map.png": "Test latents along their two principal directions"},
    ),
    ("reuse.md", "Reuse on another data set", {}),
)


_PATHS = ("emnist_archive", "images", "init_from")  # differ between machines


def study_sections(workdir: pathlib.Path) -> list[tuple[str, str]]:
    """Heading and HTML of every study that has a table in the folder."""
    sections = []
    for pattern, heading, figures in STUDIES:
        parts = []
        for path in sorted(workdir.rglob(pattern)):
            parts.append(f"<h3>{path.relative_to(workdir)}</h3>")
            settings = matrix.load_settings(path.parent)
            shown = (f"{k} {v}" for k, v in settings.items() if v is not None)
            parts.append(report_page.from_markdown(", ".join(shown)))
            parts.append(report_page.from_markdown(path.read_text("utf-8")))
            parts += [
                report_page.figure(path.parent / name, caption)
                for name, caption in figures.items()
                if (path.parent / name).exists()
            ]
        if parts:
            sections.append((heading, "".join(parts)))
    return sections


def run_sections(paths: list[pathlib.Path]) -> list[tuple[str, str]]:
    """Quality, sizes, reconstructions and commands of finished runs."""
    records = [(path, results.load_results(path)) for path in paths]
    quality, sizes = [], []
    for path, record in records:
        if record["status"] not in ("finished", "imported") or not record["test"]:
            raise UserError(f"--runs: {path} is {record['status']}, not finished")
        test, training = record["test"], record.get("training") or {}
        autoencoder = test["autoencoder"]
        quality.append(
            (
                record["name"],
                record["config"]["decoder"],
                record["config"]["preset"],
                training.get("epochs", "-"),
                f"{record['dataset']['test']}",
                f"{autoencoder['mse']:.5f}",
                f"{autoencoder['psnr']:.2f}",
                f"{autoencoder['ssim']:.4f}",
                f"{test['decoder_only']['mse']:.5f}",
                test["active_latents"],
            )
        )
        if found := record.get("sizes"):
            mebibytes = [
                f"{found[f'{name}_bytes'] / 2**20:.3f}"
                for name in ("images_uint8", "images_float32", "latents")
            ]
            sizes.append((record["name"], *mebibytes, f"{found['bits_per_pixel']:.3f}"))
    headings = (
        "run, decoder, preset, epochs, test images, MSE, PSNR dB, SSIM, "
        "MSE decoder only, active latents"
    )
    sections = [("Runs", report_page.table(headings.split(", "), quality))]
    if sizes:
        headings = "run, images uint8 MiB, float32 MiB, latents MiB, bits per pixel"
        table = report_page.table(headings.split(", "), sizes)
        sections.append(("Sizes of the training images and their latents", table))
    pictures = []
    for path, record in records:
        examples = plots.load_examples(path)
        for group in ("random", "best", "worst"):
            chosen = examples["group"] == group
            part = {k: examples[k][chosen] for k in ("original", "autoencoder", "mse")}
            pictures.append(f"<h3>{record['name']}: {group} test images</h3><div>")
            pictures.append(report_page.flipping(f"{record['name']}-{group}", part))
            pictures.append("</div>")
    note = "<p>Under each image its mean squared error; point at one to flip it.</p>"
    sections.append(("Reconstructions", note + "".join(pictures)))
    commands = "\n".join(
        launch_command(record["config"])
        for _, record in records
        if "training" in record
    )
    if commands:
        sections.append(("Commands", report_page.command(commands)))
    return sections


def launch_command(settings: dict) -> str:
    """The `launch.py` call that gives a run these settings, as short as it can be."""
    preset = make_config(preset=settings["preset"])
    arguments = [f"--preset={settings['preset']}"]
    arguments += [
        f"--{name}={pathlib.Path(value).name if name in _PATHS else value}"
        for name, value in settings.items()
        if name not in ("preset", "workdir", "data_dir", "run_name")
        and value != getattr(preset, name, value)
    ]
    return shlex.join(["python", "launch.py", *arguments])


def main() -> None:
    """Runs the command of the module's docstring."""
    flags = parse_flags(
        sys.argv,
        __doc__.strip(),
        Flag("workdir", "folder of the studies", required=True),
        Flag("runs", "folders of finished runs to show, comma-separated"),
        Flag("title", "of the page", default="emnist_jax: the study"),
    )
    workdir = pathlib.Path(flags.workdir)
    out = check_output(workdir / "report.html", flag="")
    if out.exists() and report_page.MARK not in out.read_text("utf-8", "replace"):
        raise UserError(f"{out}: was not written by this command; move it away")
    paths = [pathlib.Path(path) for path in flags.runs.split(",")] if flags.runs else []
    sections = study_sections(workdir)
    if paths:
        sections += run_sections(paths)
    if not sections:
        raise UserError(
            f"--workdir={workdir}: holds no table of a study; name one that does, or "
            "--runs"
        )
    with files.write_atomically(out) as temporary:
        temporary.write_text(report_page.page(flags.title, sections), encoding="utf-8")
    size = (workdir / "report.html").stat().st_size
    print(f"{workdir / 'report.html'}: {len(sections)} sections, {size:,} bytes")


if __name__ == "__main__":
    run_command(main)
