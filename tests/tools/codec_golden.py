"""Writes the golden files that tests decode forever.

    python -m tests.tools.codec_golden

Run it only for a new version of the format: a change here means that files
written before no longer decode.
"""

import hashlib

from codec_models import GOLDEN, PoolingAutoencoder, golden_contents

from emnist_jax import codec
from emnist_jax.storage import files


def main() -> None:
    """Writes a file for each mode, and the hashes of files and pixels of all."""
    facts = files.read_json(GOLDEN / "codec.json")
    for mode, content in golden_contents().items():
        with files.write_atomically(GOLDEN / f"codec_{mode}.ejx") as temporary:
            temporary.write_bytes(content)
        run = PoolingAutoencoder() if mode.startswith("latent") else None
        pixels = codec.decompress(content, run=run)
        facts[mode] = {
            "file": hashlib.sha256(content).hexdigest(),
            "pixels": hashlib.sha256(pixels.tobytes()).hexdigest(),
        }
    files.write_json(GOLDEN / "codec.json", facts)


if __name__ == "__main__":
    main()
