"""The codec, and trained autoencoders, on further test images: NIST's own test sets.

  python -m experiments.further_tests --emnist_archive=gzip.zip \
      --tests=MNIST=TESTS.npz:mnist,Letters=TESTS.npz:letters \
      --runs=pretrained/model02 --out=experiments/results/further_tests.json

The first row is the test part of `--dataset`. Images that also stand among its training
images are left out of the others, and counted. Sizes and errors are of real files, read
back. 25 minutes on two cores, beside other work, for 41,000 images.
"""

from collections.abc import Sequence

import numpy as np

from emnist_jax import codec, read_images
from emnist_jax.cli.arguments import comma_separated
from emnist_jax.cli.command import run_command
from emnist_jax.cli.errors import UserError
from emnist_jax.codec.lossy import OutOfReach
from emnist_jax.codec.writer import LARGE_BLOCK
from emnist_jax.runs import Run, load_run
from experiments import study, tables
from experiments.claims import quality

MODELS = ("default", "fast", "small")
LOSSY = {  # and coded latents of every run
    "near-lossless, off by at most 4": dict(mode="near-lossless", max_error=4),
    "lossy, 32 bytes": dict(mode="lossy", bytes_per_image=32),
}
LATENT_BYTES = 14
# Likelihoods on all images of NIST's own test sets: Dang et al. 2022 (Sparse PC), Liu &
# Van den Broeck 2021 (HCLT).
PUBLISHED = {"MNIST": {"Sparse PC": 1.52, "HCLT": 1.77}}
PUBLISHED["Letters"] = {"Sparse PC": 1.58, "HCLT": 1.80}


def unseen(images: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Those of uint8 [N, height, width] of which `train` holds no copy."""
    seen = {image.tobytes() for image in train}
    return images[[image.tobytes() not in seen for image in images]]


def measure(images: np.ndarray, runs: dict[str, Run]) -> dict:
    """Bits per pixel of files, bytes and errors of lossy ones, and each run's error.

    Args:
      images: uint8 [N, height, width].
      runs: trained autoencoders by name.
    """
    found = {"images": len(images), "bpp": {}, "lossy": {}, "runs": {}}
    for model in MODELS:
        for block_images in (None, LARGE_BLOCK):  # as it is, and smallest
            content = codec.compress(images, model=model, block_images=block_images)
            if not np.array_equal(codec.decompress(content), images):
                raise AssertionError(f"{model} does not give every pixel back")
            name = model if block_images is None else f"{model}, {block_images} a block"
            found["bpp"][name] = 8 * len(content) / images.size
    lossy = dict(LOSSY)
    for name, run in runs.items():
        outputs = run.decode(run.encode(images))
        found["runs"][name] = quality(images[..., None], outputs)
        options = dict(mode="latent", run=run, bytes_per_image=LATENT_BYTES)
        lossy[f"latents of {name}, {LATENT_BYTES} bytes"] = options
    for name, options in lossy.items():
        try:
            content = codec.compress(images, **options)
        except OutOfReach:  # not as few bytes, of few images say
            continue
        outputs = codec.decompress(content, run=options.get("run"))
        error = np.square(outputs.astype(np.int32) - images).mean(dtype=np.float64)
        row = {"bytes": len(content) / len(images), "mse": float(error) / 255**2}
        found["lossy"][name] = row
    return found


def format_markdown(results: dict) -> str:
    """The results as Markdown."""
    rows = results["tests"]
    sizes = [
        (
            name,
            row["images"],
            row["left_out"],
            *(f"{x:.3f}" for x in row["bpp"].values()),
        )
        for name, row in rows.items()
    ]
    names = " | ".join(next(iter(rows.values()))["bpp"])
    published = "; ".join(
        f"{name}: " + ", ".join(f"{who} {bpp:.2f}" for who, bpp in values.items())
        for name, values in PUBLISHED.items()
    )
    parts = [
        "Bits per pixel of real files, every pixel back. Images that also stand in the "
        f"training images of {results['source']['title']} are left out.\n",
        tables.markdown(f"test images |  | left out | {names}", sizes),
        f"Likelihoods that others published on all images of these sets, no files: "
        f"{published}.\n",
    ]
    lossy = [
        (tables.plain(kind), name, f"{file['bytes']:.1f}", f"{file['mse']:.2g}")
        for name, row in rows.items()
        for kind, file in row["lossy"].items()
    ]
    headings = "file | test images | bytes an image | MSE"
    parts.append(tables.markdown(headings, sorted(lossy)))
    errors = [
        (
            tables.plain(run),
            name,
            f"{q['mse']:.5f}",
            f"{q['psnr']:.2f}",
            f"{q['ssim']:.4f}",
        )
        for name, row in rows.items()
        for run, q in row["runs"].items()
    ]
    if errors:
        headings = "run | test images | MSE | PSNR dB | SSIM"
        parts.append(tables.markdown(headings, sorted(errors)))
    return "\n".join(parts)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command of the module's docstring."""
    parser = study.StudyParser(__doc__)
    parser.add_data()
    add, several = parser.add_argument, comma_separated()
    add("--tests", type=several, default=[], help="further ones: NAME=IMAGES,...")
    add("--runs", type=several, default=[], help="folders of trained autoencoders")
    add("--out", required=True, help="a .json file; a .md goes along")
    flags = parser.parse_args(argv)
    out = study.check_output(flags.out, flags.emnist_archive)
    runs = {path: load_run(path, flag="--runs") for path in flags.runs}
    dataset = study.load_dataset(flags)
    sets = {"test": np.ascontiguousarray(dataset.test.images[..., 0])}
    for test in flags.tests:
        name, equals, source = test.partition("=")
        if not equals:
            raise UserError(f"--tests={test}: give NAME=IMAGES")
        sets[name] = np.asarray(read_images(source).images)
    found = {}
    for name, images in sets.items():
        kept = unseen(images, dataset.train.images)
        found[name] = {"left_out": len(images) - len(kept), **measure(kept, runs)}
    results = {"source": dataset.source, "published": PUBLISHED, "tests": found}
    text = format_markdown(results)
    study.write(out.with_suffix(""), results, text)


if __name__ == "__main__":
    run_command(main)
