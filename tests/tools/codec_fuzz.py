"""Mutated compressed files: each must give the right pixels or one clear error.

    python -m tests.tools.codec_fuzz --files=20000 --seed=0 --out=fuzz.json

Each call with another seed adds its files to the counts, 4 minutes for 20,000 on an
idle core; a seed that is there already is not run again. Files are a few
hundred bytes long and all of their blocks are entropy-coded, so that mutations reach
every part: the head, the index, payloads and embedded models. Half of the mutations
are followed by right checksums, so that what lies behind those is reached as well.
Wrong pixels, any exception but `UserError`, or memory beyond a bound end the run.
"""

import collections
import dataclasses
import pathlib
import re
import resource
import time
import zlib
from collections.abc import Sequence

import numpy as np
from codec_models import TINY, PoolingAutoencoder, coded_content, golden_images

from emnist_jax import codec
from emnist_jax.cli.arguments import Parser, count
from emnist_jax.cli.command import run_command
from emnist_jax.cli.errors import UserError
from emnist_jax.codec import container, model_file, native
from emnist_jax.storage import files, paths

MOST_GROWTH = 256 * 1024  # KiB over what the first files took


def flip(content: bytes, rng: np.random.Generator) -> bytes:
    """Flips one to four bits anywhere."""
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
    """Puts random bytes somewhere, or in place of others."""
    at, length = rng.integers(0, len(content)), rng.integers(1, 20)
    keep = at if rng.random() < 0.5 else at + length
    return content[:at] + rng.bytes(length) + content[keep:]


def swap(content: bytes, rng: np.random.Generator) -> bytes:
    """Exchanges two pieces."""
    a, b, c = np.sort(rng.integers(0, len(content), 3))
    return content[:a] + content[b:c] + content[a:b] + content[c:]


def _parts(content: bytes) -> tuple[container.Head, bytes, bytes]:
    """The head, the embedded model and the payloads."""
    head = container.parse(content, len(content), "the content")
    first = head.blocks[0].offset
    return head, content[first - head.model_length : first], content[first:]


def _joined(head, model: bytes, payloads: bytes, lengths=None) -> bytes:
    """A file with right checksums of its head."""
    entries = [
        (block.kind, length, block.checksum)
        for block, length in zip(
            head.blocks, lengths or [b.length for b in head.blocks], strict=True
        )
    ]
    head = dataclasses.replace(head, model_length=len(model))
    return container.pack(head, entries) + model + payloads


def payload(content: bytes, rng: np.random.Generator) -> bytes:
    """Damages payloads below a head that says nothing of it."""
    head, model, payloads = _parts(content)
    mutate = (flip, swap)[rng.integers(2)]
    return _joined(head, model, mutate(payloads, rng))


def resize(content: bytes, rng: np.random.Generator) -> bytes:
    """Makes payloads longer or shorter, and the index agree."""
    head, model, payloads = _parts(content)
    pieces, lengths = [], []
    for block in head.blocks:
        start = block.offset - head.blocks[0].offset
        piece = payloads[start : start + block.length]
        piece = (cut, insert)[rng.integers(2)](piece, rng)
        pieces.append(piece)
        lengths.append(len(piece))
    return _joined(head, model, b"".join(pieces), lengths)


def claim(content: bytes, rng: np.random.Generator) -> bytes:
    """Claims other numbers: of images, of pixels, a block, of the error bound."""
    head, model, payloads = _parts(content)
    field = ("images", "height", "width", "block_images", "parameter")[rng.integers(5)]
    value = getattr(head, field)
    others = (value + 1, value - 1, 2 * value, value * 1000, 1 << rng.integers(40))
    head = dataclasses.replace(head, **{field: max(0, int(others[rng.integers(5)]))})
    return _joined(head, model, payloads)


def seal(content: bytes, rng: np.random.Generator) -> bytes:
    """Flips bits of the head and seals it with a right checksum."""
    head, model, payloads = _parts(content)
    start = bytearray(content[: head.blocks[0].offset - head.model_length - 4])
    for at in rng.integers(4, len(start), rng.integers(1, 4)):
        start[at] ^= 1 << rng.integers(8)
    return bytes(start) + zlib.crc32(start).to_bytes(4, "little") + model + payloads


def replace_model(content: bytes, rng: np.random.Generator) -> bytes:
    """Changes what an embedded model holds, and lets all checksums agree."""
    head, model, payloads = _parts(content)
    if head.mode == container.LATENT or not model:
        return flip(content, rng)
    start = len(model_file.MAGIC) + model_file.SIZES.size
    sizes, body = model[4:start], zlib.decompress(model[start + 4 :])
    if rng.random() < 0.5:
        sizes = flip(sizes, rng)
    else:
        body = (flip, insert, cut)[rng.integers(3)](body, rng)
    digest = model_file.digest(sizes + body)
    model = model_file.MAGIC + sizes + digest + zlib.compress(body, 1)
    return _joined(dataclasses.replace(head, digest=digest), model, payloads)


MUTATIONS = (flip, change, cut, insert, swap)
MUTATIONS += (payload, resize, claim, seal, replace_model)


def small_contents() -> dict[str, bytes]:
    """Files so small that mutations hit every part often; all blocks are coded."""
    latent = codec.compress(
        golden_images()[:32], mode="latent", run=PoolingAutoencoder(), bits=3
    )
    if {block.kind for block in _parts(latent)[0].blocks} != {container.CODED}:
        raise AssertionError("the latents are not coded")
    crops = golden_images()[:24, 9:12, 8:12]
    return {
        "lossless": coded_content(crops, 12),
        "near-lossless": coded_content(crops, 12, max_error=2),
        "embedded": coded_content(crops, 12, embed=True),
        "latent": latent,
    }


def decompress(content: bytes, run: PoolingAutoencoder) -> np.ndarray:
    """Decompresses with all that a file may ask for."""
    embedded = len(content) > 4 and content[4] & container.EMBEDDED
    return codec.decompress(content, run=run, model=None if embedded else TINY)


def _memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def fuzz(total: int, seed: int) -> dict:
    """Mutates so many files; returns counts and reasons, memory and the slowest."""
    contents, run = small_contents(), PoolingAutoencoder()
    pixels = {name: decompress(c, run) for name, c in contents.items()}
    names = list(contents)
    rng = np.random.default_rng(seed)
    counts, reasons = collections.Counter(), collections.Counter()
    started, slowest, memory = time.monotonic(), 0.0, 0
    for number in range(total):
        mode = names[number % len(names)]
        mutation = MUTATIONS[number // len(names) % len(MUTATIONS)]
        damaged = mutation(contents[mode], rng)
        before = time.process_time()  # a pause of the machine is none of the file's
        try:
            found = decompress(damaged, run)
        except UserError as error:
            outcome = "refused"
            reason = str(error).replace(TINY, pathlib.Path(TINY).name)
            reasons[re.sub(r"\d+|b'.*'|[0-9a-f]{8}", "#", reason)[:80]] += 1
        else:
            # A head made anew may honestly say another shape for the same pixels.
            outcome = "right pixels"
            if not np.array_equal(found.ravel(), pixels[mode].ravel()):
                raise AssertionError(f"wrong pixels: seed {seed}, file {number}")
        slowest = max(slowest, time.process_time() - before)
        counts[f"{mode}, {mutation.__name__}: {outcome}"] += 1
        if number == total // 10:
            memory = _memory()
        elif number > total // 10 and _memory() > memory + MOST_GROWTH:
            raise AssertionError(f"memory: seed {seed}, file {number}")
    return {
        "files": total,
        "bytes_of_each_file": {name: len(c) for name, c in contents.items()},
        "minutes": (time.monotonic() - started) / 60,
        "slowest_file_cpu_seconds": slowest,
        "peak_memory_mib": _memory() / 1024,
        "outcomes": dict(sorted(counts.items())),
        "reasons": dict(reasons.most_common()),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Adds a seed's mutations to one JSON file."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--files", type=count, default=20_000, help="files to mutate")
    add("--seed", type=int, default=0, help="of the mutations")
    add("--out", required=True, help="a .json file")
    add("--checked", action="store_true", help="machine code that checks all indices")
    flags = parser.parse_args(argv)
    if flags.checked:
        native.options = {"checked": True}
    paths.check_output(flags.out, flag="--out=")
    path = pathlib.Path(flags.out)
    seeds = files.read_json(path).get("seeds") if path.exists() else {}
    if not isinstance(seeds, dict):
        raise UserError(f"--out={path}: is no result of this command")
    if str(flags.seed) not in seeds:
        seeds[str(flags.seed)] = fuzz(flags.files, flags.seed)
    outcomes = collections.Counter()
    for piece in seeds.values():
        outcomes.update(piece["outcomes"])
    found = {"files": sum(piece["files"] for piece in seeds.values())}
    found |= {"outcomes": dict(sorted(outcomes.items())), "seeds": seeds}
    files.write_json(path, found)


if __name__ == "__main__":
    run_command(main)
