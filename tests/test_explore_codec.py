"""The format's second implementation, in JavaScript, against golden files and ours."""

import bz2
import functools
import hashlib
import json
import shutil

import numpy as np
import pytest
from codec_models import (
    GOLDEN,
    TINY,
    PoolingAutoencoder,
    coded_content,
    golden_images,
)
from page_tools import PAGE, ask_node

from emnist_jax import codec
from emnist_jax.codec import container

MODES = "lossless near-lossless latent latent-turned lossy version-2".split()


@pytest.fixture
def ask(tmp_path):
    for path in (*GOLDEN.glob("*.ejx"), TINY):
        shutil.copy(path, tmp_path)
    return functools.partial(
        ask_node, "format_in_javascript.mjs", [PAGE / "codec", tmp_path]
    )


def test_golden_files_decode_bit_for_bit(ask, tmp_path):
    jobs = [
        {"job": "decode", "file": f"codec_{mode}.ejx", "out": mode} for mode in MODES
    ]
    answers = ask(jobs)
    facts = json.loads((GOLDEN / "codec.json").read_text())
    for mode, answer in zip(MODES, answers, strict=True):
        decoded = (tmp_path / mode).read_bytes()
        if mode.startswith("latent"):
            latents = np.frombuffer(decoded, np.float32).reshape(-1, 16)
            pixels = PoolingAutoencoder().decode(latents) * 255
            decoded = pixels.round().clip(0, 255).astype(np.uint8).tobytes()
        assert answer["images"] == 40
        assert hashlib.sha256(decoded).hexdigest() == facts[mode]["pixels"]
    assert [answer["rows"] for answer in answers] == [
        28,
        56,
        0,
        0,
        56,
        28,
    ]  # coded blocks


def test_it_writes_the_same_blocks(ask, tmp_path):
    """Byte for byte those of the golden files; its bits are those it spends."""
    images = golden_images()[:20]
    images.tofile(tmp_path / "images.raw")
    shape = {"images": 20, "height": 28, "width": 28}
    job = {"job": "encode", "images": "images.raw", "shape": shape}
    jobs = [
        job | {"model": "codec_model.ejm", "maxError": error, "out": mode}
        for mode, error in (("lossless", 0), ("near-lossless", 3))
    ]
    for answer, job in zip(ask(jobs), jobs, strict=True):
        heads, payloads = [], []
        for name in (f"codec_{job['out']}.ejx", job["out"]):
            content = (tmp_path / name).read_bytes()
            heads.append(container.parse(content, len(content), name))
            start = heads[-1].blocks[0].offset
            payloads.append(content[start : start + heads[-1].blocks[0].length])
        golden, ours = heads
        assert payloads[0] == payloads[1]
        assert len(content) == ours.blocks[0].offset + len(payloads[1])
        assert ours.blocks[0].checksum == golden.blocks[0].checksum
        for name in ("mode", "digest", "parameter", "height", "width"):
            assert getattr(ours, name) == getattr(golden, name)
        assert 0 <= len(payloads[1]) - answer["bits"] / 8 < 6


def test_lanes_other_sizes_and_models_at_hand(ask, tmp_path):
    """Two lanes, images that are not 28x28, and a model that the file only names."""
    images = golden_images()[:33, 4:9, :15]
    (tmp_path / "file.ejx").write_bytes(coded_content(images, 33))
    models = ["codec_model.ejm"]
    ask([{"job": "decode", "file": "file.ejx", "out": "found", "models": models}])
    found = np.fromfile(tmp_path / "found", np.uint8).reshape(images.shape)
    assert np.array_equal(found, images)


def test_joined_files_and_differences_of_rows(ask, tmp_path):
    """Blocks of any number of images; bzip2 after a 1, which inflates to the same."""
    random = np.random.default_rng(0).integers(0, 256, (6, 1, 28), np.uint8)
    steep = random + 37 * np.arange(28, dtype=np.uint8)[:, None]  # modulo 256
    options = {"model": TINY, "embed_model": True}
    codec.compress_file(tmp_path / "steep.ejx", steep, **options)
    sources = [tmp_path / "codec_lossless.ejx", tmp_path / "steep.ejx"]
    head = codec.join(tmp_path / "joined.ejx", *sources)
    (answer,) = ask([{"job": "decode", "file": "joined.ejx", "out": "found"}])
    content = (tmp_path / "joined.ejx").read_bytes()
    assert answer["kinds"][-1] == 3 and content[head.blocks[-1].offset] == 1
    found = np.fromfile(tmp_path / "found", np.uint8).reshape(-1, 28, 28)
    assert np.array_equal(found, np.concatenate([golden_images(), steep]))


def test_bzip2_of_every_shape(ask, tmp_path):
    generator = np.random.default_rng(0)
    jobs = []
    for index, data in enumerate(
        (
            bytes(3),
            b"aaaa",
            bytes(1000),
            bytes(range(256)) * 2,
            generator.integers(0, 256, 3000, np.uint8).tobytes(),
            b"ab" * 60_000 + bytes(100_000),  # blocks of 100,000
        )
    ):
        (tmp_path / f"{index}.bz2").write_bytes(bz2.compress(data, 1))
        digest = hashlib.sha256(data).hexdigest()
        job = {"job": "bunzip2", "file": f"{index}.bz2", "size": len(data)}
        jobs.append(job | {"digest": digest})
    assert ask(jobs) == [True] * len(jobs)


def test_the_vectors_of_the_format(ask):
    (found,) = ask([{"job": "vectors"}])
    assert found == {
        "varints": ["00", "ac02"],
        "head": "454a58310061626364021c1c01920304030201c01805000000c7a8f6e7",
        "parsed": True,
        "coded": "ff7f0300cad4020000000000",
        "back": [[0, 1], [0, 1], [1, 0]],
    }


def test_damage_and_the_unknown_are_refused(ask, tmp_path):
    content = coded_content(golden_images()[:2, :12, :12], 1, embed=True)
    (tmp_path / "small.ejx").write_bytes(content)
    generator = np.random.default_rng(0)
    head = len(content) - (GOLDEN / "codec_model.ejm").stat().st_size
    places = [*range(20), *generator.integers(20, len(content), 60), head, -1]
    changes = [[int(at) % len(content), 1 << int(at) % 8] for at in places]
    changes += [[int(at), 0] for at in generator.integers(0, len(content), 20)]
    start = list(content[:4])
    messages = {
        "no .ejx file": [80, 75, 3, 4],
        "of another version of the format": [*start[:3], 51, *content[4:]],
        "uses a feature of the format": [*start, 0x20 | content[4], *content[5:]],
        "ends too early": start,
    }
    jobs = [{"job": "message", "bytes": values} for values in messages.values()]
    jobs.append({"job": "damage", "file": "small.ejx", "changes": changes})
    *found, escaped = ask(jobs)
    for part, message in zip(messages, found, strict=True):
        assert message.startswith("FormatError: ") and part in message
    assert escaped == []
