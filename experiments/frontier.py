"""The frontier: the least error at every number of bytes an image, in real files.

  python -m experiments.frontier --runs=pretrained/model02 --published=RUN \
      --emnist_archive=gzip.zip --workdir=experiments/results/frontier

All of ours (lossless, near-lossless, lossy, coded latents of `--runs`), principal
components coded as latents are, JPEG, WebP, AVIF and JPEG XL of sheets of 1,024 images,
and the float32 latents of the published weights (`--published`, a run made by
`emnist-jax import`): bytes an image with everything that a file needs, and MSE, PSNR
and SSIM over all test images. Rows are kept in the folder and not measured again;
`frontier.json`, `.md` and `.png` are made from them.
"""

import functools
import hashlib
import pathlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from emnist_jax import codec
from emnist_jax.cli.arguments import comma_separated
from emnist_jax.cli.command import run_command
from emnist_jax.codec.lossy import OutOfReach
from emnist_jax.data.splits import Dataset
from emnist_jax.models.autoencoder import to_unit_range
from emnist_jax.runs import Run, load_run
from emnist_jax.storage import files
from experiments import equal_bytes, image_codecs, pca, study, tables
from experiments.claims import quality

BUDGETS = (8, 12, 16, 24, 32, 48, 64, 94, 128)  # bytes an image
ASKED = 0.995  # of the bytes: a sample chooses, and the whole may take a bit more
ERRORS = (1, 2, 3, 4)  # largest, of near-lossless files
LATENT_BYTES = (8, 10, 12, 14, 16, 20, 24, 32)
DIMENSIONS = (8, 16, 32)  # principal components
KINDS = ("JPEG", "WEBP", "AVIF", "JPEG XL")
LEVELS = range(0, 96, 8)  # of their quality

# The name of a point, that of its method, and what gives bytes an image and
# reconstructions uint8 [N, 28, 28] (None: not as few bytes).
Points = Iterator[tuple[str, str, Callable[[], tuple[float, np.ndarray] | None]]]


class Remembered:
    """A run that looks for the latents of equal images once, whatever the size."""

    def __init__(self, run: Run):
        """Takes the run."""
        self._run, self._refined = run, {}
        self.decoder, self.decoder_image_size = run.decoder, run.decoder_image_size
        self.encode, self.decode, self.errors = run.encode, run.decode, run.errors

    def refine(self, images: np.ndarray, *given) -> np.ndarray:
        """As of the run."""
        key = hashlib.sha256(np.ascontiguousarray(images)).digest()
        if key not in self._refined:
            self._refined[key] = self._run.refine(images, *given)
        return self._refined[key]


def points(dataset: Dataset, runs: dict[str, Run], published: Run | None) -> Points:
    """Every point of the figure.

    Args:
      dataset: components are fitted to its training images, all is measured on its
        test images.
      runs: trained autoencoders by name.
      published: the run of the published weights.
    """
    images = np.ascontiguousarray(dataset.test.images[..., 0])
    coded = functools.partial(_coded, images)
    small = functools.partial(coded, model="small")
    yield "lossless-small", "lossless, model small", small
    yield "lossless", "lossless", coded
    for error in ERRORS:
        near = dict(mode="near-lossless", max_error=error)
        yield (
            f"near-lossless-{error}",
            "near-lossless",
            functools.partial(coded, **near),
        )
    for budget in BUDGETS:
        lossy = dict(mode="lossy", bytes_per_image=ASKED * budget)
        yield f"lossy-{budget}", "lossy", functools.partial(coded, **lossy)
    components = pca.fit(dataset.train.images, max(DIMENSIONS))
    models = {name: ("latents", Remembered(run)) for name, run in runs.items()} | {
        f"pca{n}": ("PCA", equal_bytes.ComponentsRun(components, n)) for n in DIMENSIONS
    }
    for name, (method, run) in models.items():
        for size in LATENT_BYTES:
            latent = dict(mode="latent", run=run, bytes_per_image=size)
            make = functools.partial(coded, **latent)
            yield f"{name.replace('/', '-')}-{size}", method, make
    for kind in KINDS:
        for level in LEVELS:
            made = functools.partial(_classical, kind, images[..., None], level)
            yield f"{kind.lower().replace(' ', '-')}-{level}", kind, made
    if published is not None:
        yield (
            "published",
            "published latents, float32",
            lambda: _floats(published, images),
        )


def _coded(images: np.ndarray, **options) -> tuple[float, np.ndarray] | None:
    try:
        content = codec.compress(images, **options)
    except OutOfReach:
        return None
    back = codec.decompress(content, run=options.get("run"))
    return len(content) / len(images), back


def _classical(kind: str, images: np.ndarray, level: int) -> tuple[float, np.ndarray]:
    encoded = image_codecs.coded(kind, images, level)
    size = sum(map(len, encoded)) / len(images)
    return size, image_codecs.decoded(encoded, len(images))[..., 0]


def _floats(run: Run, images: np.ndarray) -> tuple[float, np.ndarray]:
    latents = run.encode(images)
    outputs = np.round(255 * run.decode(latents)[..., 0])
    return latents[0].nbytes, outputs.astype(np.uint8)


def best_within(rows: list[dict], budget: float) -> dict | None:
    """The row of least error among those of at most so many bytes."""
    fitting = [row for row in rows if row["bytes"] <= budget]
    return min(fitting, key=lambda row: row["mse"], default=None)


def format_markdown(rows: list[dict]) -> str:
    """What to take at each size, and the error of each method there."""
    made = [row for row in rows if "mse" in row]
    best = [(budget, best_within(made, budget)) for budget in BUDGETS]
    winners = [
        (
            *(budget, tables.plain(row["name"]), f"{row['bytes']:.1f}"),
            *(f"{row['mse']:.2g}", _decibels(row["mse"]), f"{row['ssim']:.4f}"),
        )
        for budget, row in best
        if row
    ]
    methods = list(dict.fromkeys(row["method"] for row in made))
    errors = []
    for budget in BUDGETS:
        found = [
            best_within([row for row in made if row["method"] == method], budget)
            for method in methods
        ]
        errors.append(
            (budget, *("" if x is None else f"{x['mse']:.2g}" for x in found))
        )
    return "\n".join(
        [
            "The least error within so many bytes an image:\n",
            tables.markdown(
                "bytes at most | take | bytes an image | MSE | PSNR of it, dB | SSIM",
                winners,
            ),
            "MSE of each method within them:\n",
            tables.markdown(" | ".join(["bytes at most", *methods]), errors),
        ]
    )


def _decibels(mse: float) -> str:
    return f"{-10 * np.log10(mse):.2f}" if mse else "exact"


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command of the module's docstring."""
    parser = study.StudyParser(__doc__, "imagecodecs")
    add, several = parser.add_argument, comma_separated()
    add("--runs", type=several, default=[], help="trained autoencoders")
    add("--published", help="run of the published weights")
    parser.add_workdir()
    parser.add_data()
    flags = parser.parse_args(argv)
    workdir = pathlib.Path(flags.workdir)
    study.claim_folder(workdir, "frontier", flags, "runs", "published")
    runs = {path: load_run(path, flag="--runs") for path in flags.runs}
    published = flags.published and load_run(flags.published, flag="--published")
    dataset, rows = study.load_dataset(flags), []
    images = dataset.test.images
    for name, method, make in points(dataset, runs, published or None):
        path = workdir / "rows" / f"{name}.json"
        if not path.exists():
            print(name, flush=True)
            row = {"name": name, "method": method, "images": len(images)}
            if (made := make()) is not None:
                outputs = made[1][..., None]
                row |= {"bytes": made[0], **quality(images, to_unit_range(outputs))}
                squares = (images.astype(np.int32) - outputs) ** 2
                row["mse"] = float(squares.mean(dtype=np.float64)) / 255**2  # exact
            files.write_json(path, row)
        rows.append(files.read_json(path))
    lossy = [row for row in rows if row.get("mse")]  # on a logarithmic axis
    equal_bytes.draw(lossy, workdir / "frontier.png", BUDGETS)
    about = {"source": dataset.source, "rows": rows}
    study.write(workdir / "frontier", about, format_markdown(rows))


if __name__ == "__main__":
    run_command(main)
