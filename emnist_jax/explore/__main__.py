"""A page to play with: `python -m emnist_jax.explore --run=RUN --out=explore.html`.

One HTML file that needs no server and no network: draw a character, see its
reconstruction, move its latents, walk to another one, see its bytes, and open
compressed files by dropping them there.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from emnist_jax.cli import console
from emnist_jax.cli.arguments import Parser
from emnist_jax.cli.command import run_command
from emnist_jax.storage import files, paths, shipped

LARGEST = 4_000_000  # bytes: small enough to mail
RANGE_IMAGES = 2000  # of which the sliders' ranges come
_DATA = ("dataset", "images", "data_dir", "emnist_archive")


def make_parser() -> Parser:
    """The command's flags."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--run", required=True, help="the run's folder, or pretrained/NAME")
    add("--out", default="explore.html", help="the HTML file to write")
    add("--dataset", help="take test images of another data set (default: the run's)")
    add("--images", help="take test images from a file of your own, as in training")
    add("--data_dir", help="where tfds keeps prepared data sets (default: the run's)")
    add("--emnist_archive", help="copy of NIST's gzip.zip (default: the run's)")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Writes the page of a run."""
    flags = make_parser().parse_args(argv)
    out = paths.check_output(flags.out, flags.run, flags.images, flag="--out=")
    from emnist_jax.config import compose, stored_config
    from emnist_jax.explore import page, weights
    from emnist_jax.runs import load_run

    run = load_run(flags.run, flag="--run")
    layers, content = weights.layers(run)
    given = {n: getattr(flags, n) for n in _DATA if getattr(flags, n) is not None}
    if shipped.holds(run.path) and not (flags.dataset or flags.images):
        # What it was trained on is not here.
        given["dataset"] = "emnist/balanced" if given else "glyphs"
    if {"dataset", "images"} & given.keys():
        given = {"images": None, "test_images": None} | given
    config = dataclasses.replace(stored_config(run.config), **given)
    dataset = compose.select(config).dataset
    test, title = dataset.test, dataset.source["title"]
    rows = page.chosen(test.labels)
    labels = [dataset.class_names[label] for label in test.labels[rows]]
    rest = np.setdiff1d(np.arange(len(test))[:RANGE_IMAGES], rows)
    images = test.images[np.concatenate([rows, rest])]
    difference = page.largest_difference(run, images[: len(rows)])
    texts = {
        "run": run.path.name,
        "model": f"{config.decoder}, {run.latent_dim} latents",
        "source": f"{len(rows)} test images of {title}",
        "exactness": f"that moves pixels by at most {difference:.1e} of their range.",
    }
    names = [f"test image of {label}" for label in labels]
    data = page.facts(run, images, names, texts) | {"layers": layers}
    text = page.fill(data, content).encode()
    if len(text) > LARGEST:
        console.warn(f"{len(text):,} bytes, more than the {LARGEST:,} meant for mail")
    with files.write_atomically(out) as temporary:
        temporary.write_bytes(text)
    print(f"{flags.out}: {len(text):,} bytes; open it in a browser")


if __name__ == "__main__":
    run_command(main)
