"""Mutated compressed files: each must give the right pixels or one clear error.

    python experiments/codec_fuzz.py --files=100000 --out=fuzz.json

About 15 minutes on two cores. Mutations are flipped bits, changed bytes, cuts,
insertions, swaps of pieces and, so that they get past the first checksum, changes
below heads that are sealed again. Anything but right pixels or `UserError` ends it.
"""

import argparse
import collections
import pathlib
import resource
import sys
import time
import zlib

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from codec_models import TINY, PoolingAutoencoder, golden_contents, golden_images  # noqa: E402

from emnist_jax import codec, files  # noqa: E402
from emnist_jax.codec import container  # noqa: E402
from emnist_jax.errors import UserError, run_command  # noqa: E402


def flip(content: bytes, rng: np.random.Generator) -> bytes:
    """Flips one to four bits."""
    damaged = bytearray(content)
    for at in rng.integers(0, 8 * len(content), rng.integers(1, 5)):
        damaged[at // 8] ^= 1 << at % 8
    return bytes(damaged)


def change(content: bytes, rng: np.random.Generator) -> bytes:
    """Sets bytes near the start, where the head is."""
    damaged = bytearray(content)
    for at in rng.integers(0, min(64, len(content)), rng.integers(1, 4)):
        damaged[at] = rng.choice([0, 1, 127, 128, 255, rng.integers(256)])
    return bytes(damaged)


def cut(content: bytes, rng: np.random.Generator) -> bytes:
    """Drops the end."""
    return content[: rng.integers(0, len(content))]


def insert(content: bytes, rng: np.random.Generator) -> bytes:
    """Puts random bytes somewhere, or drops some."""
    at, length = rng.integers(0, len(content)), rng.integers(1, 20)
    keep = at if rng.random() < 0.5 else at + length
    return content[:at] + rng.bytes(length) + content[keep:]


def swap(content: bytes, rng: np.random.Generator) -> bytes:
    """Exchanges two pieces."""
    a, b, c = np.sort(rng.integers(0, len(content), 3))
    return content[:a] + content[b:c] + content[a:b] + content[c:]


def seal(content: bytes, rng: np.random.Generator) -> bytes:
    """Changes the head and seals it with a right checksum."""
    head = container.parse(content, len(content), "x")
    end = (head.blocks[0].offset if head.blocks else len(content)) - head.model_length
    start = bytearray(content[: end - 4])
    for at in rng.integers(4, len(start), rng.integers(1, 4)):
        start[at] ^= 1 << rng.integers(8)
    return bytes(start) + zlib.crc32(start).to_bytes(4, "little") + content[end:]


MUTATIONS = (flip, change, cut, insert, swap, seal)


def small_contents() -> dict[str, bytes]:
    """Files small enough that their coded blocks are hit and decoded often."""
    crops = np.ascontiguousarray(golden_images()[:24, 10:14, 8:14])
    options = {"model": TINY, "block_images": 12}
    return {
        "lossless": codec.compress(crops, **options),
        "near-lossless": codec.compress(
            crops, mode="near-lossless", max_error=2, **options
        ),
        "embedded": codec.compress(crops, embed_model=True, **options),
        "latent": golden_contents()["latent"],
    }


def decompress(content: bytes, run: PoolingAutoencoder) -> np.ndarray:
    """Decompresses with all that a file may ask for."""
    embedded = len(content) > 4 and content[4] & container.EMBEDDED
    return codec.decompress(content, run=run, model=None if embedded else TINY)


def main() -> None:
    """Runs the mutations and writes their counts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", required=True)
    flags = parser.parse_args()
    contents, run = small_contents(), PoolingAutoencoder()
    pixels = {name: decompress(c, run) for name, c in contents.items()}
    names = list(contents)
    rng = np.random.default_rng(flags.seed)
    counts, started = collections.Counter(), time.monotonic()
    for number in range(flags.files):
        mode = names[number % len(names)]
        mutation = MUTATIONS[number // len(names) % len(MUTATIONS)]
        damaged = mutation(contents[mode], rng)
        try:
            found = decompress(damaged, run)
        except UserError:
            outcome = "refused"
        else:
            # A sealed head may honestly say another shape for the same pixels.
            same = np.array_equal(found.ravel(), pixels[mode].ravel())
            outcome = "right pixels" if same else "WRONG PIXELS"
            if not same and mutation is not seal:
                raise AssertionError(f"wrong pixels: seed {flags.seed}, file {number}")
        counts[f"{mode}, {mutation.__name__}: {outcome}"] += 1
    files.write_json(
        flags.out,
        {
            "files": flags.files,
            "seed": flags.seed,
            "minutes": (time.monotonic() - started) / 60,
            "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            / 1024,
            "outcomes": dict(sorted(counts.items())),
        },
    )


if __name__ == "__main__":
    run_command(main)
