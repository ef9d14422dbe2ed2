"""Writes the golden files that tests decode forever.

    python experiments/codec_golden.py

Run it only for a new version of the format: a change here means that files
written before no longer decode.
"""

import hashlib
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from codec_models import GOLDEN, PoolingAutoencoder, golden_contents  # noqa: E402

from emnist_jax import codec, files  # noqa: E402


def main() -> None:
    """Writes a file for each mode, and the hashes of files and pixels."""
    facts = {}
    for mode, content in golden_contents().items():
        with files.write_atomically(GOLDEN / f"codec_{mode}.ejx") as temporary:
            temporary.write_bytes(content)
        run = PoolingAutoencoder() if mode == "latent" else None
        pixels = codec.decompress(content, run=run)
        facts[mode] = {
            "file": hashlib.sha256(content).hexdigest(),
            "pixels": hashlib.sha256(pixels.tobytes()).hexdigest(),
        }
    files.write_json(GOLDEN / "codec.json", facts)


if __name__ == "__main__":
    main()
