"""One HTML page of everything a folder of studies holds.

  python -m experiments.report --workdir=W [--runs=RUN,RUN...]

Finds the tables (`comparison.md`, `ablations.md`, `claims.md`, `probes.md`,
`reuse.md`, `equal_bytes.md`) and figures of the studies anywhere in W, and shows the
quality, sizes, settings and reconstructions of the runs that are named. Writes
`report.html` into W: one file that needs no network and no other file.
"""

import pathlib
import shlex
from collections.abc import Iterable, Sequence

from emnist_jax.cli.arguments import comma_separated
from emnist_jax.cli.command import run_command
from emnist_jax.cli.errors import UserError
from emnist_jax.config import make_config
from emnist_jax.runs import plots
from emnist_jax.storage import files, results
from emnist_jax.storage.paths import check_output
from experiments import report_page, study, tables

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
QUALITY = (
    "run | decoder | preset | epochs | test images | MSE | PSNR dB | SSIM | "
    "MSE decoder only | active latents"
)
_PATHS = ("emnist_archive", "images", "init_from")  # differ between machines


def study_sections(workdir: pathlib.Path) -> list[tuple[str, str]]:
    """Heading and HTML of every study that has a table in the folder."""
    sections = []
    for pattern, heading, figures in STUDIES:
        parts = []
        for path in sorted(workdir.rglob(pattern)):
            parts.append(report_page.heading(str(path.relative_to(workdir))))
            settings = study.load_settings(path.parent)
            shown = (f"{k} {v}" for k, v in settings.items() if v is not None)
            parts.append(report_page.from_markdown(tables.plain(", ".join(shown))))
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
    quality, sizes, commands = [], [], []
    for path, record in records:
        status = record.get("status")
        if status not in ("finished", "imported") or not record.get("test"):
            raise UserError(f"--runs: {path} is {status}, not finished")
        try:
            quality.append(_quality_row(record))
            if record.get("sizes"):
                sizes.append(_sizes_row(record))
            if "training" in record:
                commands.append(launch_command(record["config"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(
                f"--runs: {path}: its results are none of ours: {error!r}"
            ) from error
    sections = [("Runs", _table(QUALITY, quality))]
    if sizes:
        headings = "run | images uint8 MiB | float32 MiB | latents MiB | bits per pixel"
        table = _table(headings, sizes)
        sections.append(("Sizes of the training images and their latents", table))
    parts = ["<p>Under each image its mean squared error; point at one to flip it.</p>"]
    for path, record in records:
        examples = plots.load_examples(path)
        for group in ("random", "best", "worst"):
            chosen = examples["group"] == group
            part = {k: examples[k][chosen] for k in ("original", "autoencoder", "mse")}
            name = f"{record['name']}-{group}"
            parts.append(report_page.heading(f"{record['name']}: {group} test images"))
            parts.append(f"<div>{report_page.flipping(name, part)}</div>")
    sections.append(("Reconstructions", "".join(parts)))
    if commands:
        sections.append(("Commands", report_page.command("\n".join(commands))))
    return sections


def _quality_row(record: dict) -> list[object]:
    test, training = record["test"], record.get("training") or {}
    autoencoder = test["autoencoder"]
    return [
        record["name"],
        record["config"]["decoder"],
        record["config"]["preset"],
        training.get("epochs", "-"),
        record["dataset"]["test"],
        f"{autoencoder['mse']:.5f}",
        f"{autoencoder['psnr']:.2f}",
        f"{autoencoder['ssim']:.4f}",
        f"{test['decoder_only']['mse']:.5f}",
        test["active_latents"],
    ]


def _sizes_row(record: dict) -> list[str]:
    found = record["sizes"]
    mebibytes = [
        f"{found[f'{name}_bytes'] / 2**20:.3f}"
        for name in ("images_uint8", "images_float32", "latents")
    ]
    return [record["name"], *mebibytes, f"{found['bits_per_pixel']:.3f}"]


def _table(headings: str, rows: Iterable[Iterable[object]]) -> str:
    rows = (map(tables.plain, row) for row in rows)  # a run may say anything
    return report_page.from_markdown(tables.markdown(headings, rows))


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


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command of the module's docstring."""
    parser = study.StudyParser(__doc__, "markdown_it")
    parser.add_workdir()
    add, help = parser.add_argument, "folders of finished runs to show, comma-separated"
    add("--runs", type=comma_separated(pathlib.Path), default=(), help=help)
    add("--title", default="emnist_jax: the study", help="of the page")
    flags = parser.parse_args(argv)
    workdir = pathlib.Path(flags.workdir)
    path = check_output(workdir / "report.html", flag="")
    if path.exists() and report_page.MARK not in path.read_text("utf-8", "replace"):
        raise UserError(f"{path}: was not written by this command; move it away")
    sections = study_sections(workdir)
    if flags.runs:
        sections += run_sections(flags.runs)
    if not sections:
        raise UserError(
            f"--workdir={workdir}: holds no table of a study; name one that does, or "
            "--runs"
        )
    with files.write_atomically(path) as temporary:
        temporary.write_text(report_page.page(flags.title, sections), encoding="utf-8")
    size = path.stat().st_size
    print(f"{path}: {len(sections)} sections, {size:,} bytes")


if __name__ == "__main__":
    run_command(main)
