"""Makes a small golden run of a finished one, for tests of later versions to read.

    python -m tests.tools.golden_run RUN

Once for each released version: its parameters are rounded so that they take few bytes,
and what they make of the golden images stands beside them.
"""

import pathlib
import shutil
import sys

import jax
import numpy as np

import emnist_jax
from emnist_jax.storage import checkpoints
from emnist_jax.storage.arrays import write_archive

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
from codec_models import GOLDEN, golden_images


def main() -> None:
    """Writes `tests/golden/run-VERSION`."""
    trained = emnist_jax.load_run(sys.argv[1])
    place = GOLDEN / f"run-{emnist_jax.__version__}"
    place.mkdir()
    for part in ("encoder", "decoder"):
        rounded = jax.tree.map(
            lambda x: (np.round(16 * x) / 16).astype(np.float16),
            getattr(trained, part)[1],
        )
        about = checkpoints.verify(trained.path / part)
        checkpoints.save(place / part, rounded, about)
    for record in ("config.json", "results.json", "metrics.jsonl"):
        shutil.copy(trained.path / record, place)
    run = emnist_jax.load_run(place)
    latents = run.encode(golden_images())
    images = np.round(255 * run.decode(latents)).astype(np.uint8)
    write_archive(place / "expected.npz", {"latents": latents, "images": images})


if __name__ == "__main__":
    main()
