"""A folder of inputs that commands must refuse, for test_bad_calls."""

import gzip
import os
import shutil
import struct

import numpy as np
from emnist_tools import header, hostile, write_archive, write_zip


def write(place, run, images):
    """Fills a folder; `images` are five, `run` is a trained one."""
    shutil.copytree(run, place / "run")
    (place / "folder" / "dir.npy").mkdir(parents=True)
    (place / "text").write_text("precious")
    os.mkfifo(place / "pipe.npy")
    (place / "loop.npy").symlink_to("loop.npy")
    (place / "zero.npy").symlink_to("/dev/zero")
    write_images(place, images)
    latent = np.zeros((3, 32), np.float32)
    np.save(place / "latents.npy", latent)
    np.save(place / "latents31.npy", latent[:, 1:])
    np.save(place / "latents-int.npy", latent.astype(np.int32))
    np.save(place / "latents-inf.npy", latent + np.inf)
    bomb = gzip.compress(header(3, 60, 28, 28) + bytes(50_000_000))
    write_zip(place / "bomb.zip", hostile(images=bomb))
    write_archive(place / "letters.zip", "letters")
    write_archive(place / "nist.zip", train=300)
    shutil.copytree(place / "run", place / "new-version")
    config = place / "new-version" / "config.json"
    config.write_text(config.read_text().replace('"seed"', '"sed"'))
    shutil.copytree(place / "run", place / "foreign")
    (place / "foreign" / "results.json").write_text('{"schema": "weights/7"}')


def write_images(place, images):
    np.save(place / "images.npy", images)
    (place / "link.npy").symlink_to("images.npy")
    os.link(place / "images.npy", place / "hard.npy")
    floats = images / 255
    for name, array in {
        "wide": images[:, :, 1:],
        "scalar": np.uint8(3),
        "ints": images.astype(np.int64),
        "bools": images > 99,
        "bytes": 255 * floats,
        "negative": floats - 0.1,
        "nan": np.where(floats > 0.9, np.nan, floats),
        "huge": np.where(floats > 0.9, 1e300, floats),
        "objects": np.array([{}, 3], object),
        "words": np.full((5, 28, 28), "pixel"),
    }.items():
        np.save(place / f"{name}.npy", array)
    np.savez(place / "many.npz", a=images, b=images)
    content = (place / "images.npy").read_bytes()
    (place / "cut.npy").write_bytes(content[:-1])
    (place / "cut-header.npy").write_bytes(content[:60])
    (place / "none.npy").touch()
    start = "{'descr': '|u1', 'fortran_order': False, 'shape': "
    for name, text in {
        "minus": start + "(-5, 28, 28)}",
        "more": start + "(2000000000000, 28, 28)}",
        "void": start + "(2000000000000, 0)}",
        "true": start + "(True, 28, 28)}",
        "code": start + "__import__('os').system('touch pwned')}",
        "nested": "-" * 9000 + "1",
        "long": start + "(5, 28, 28)}" + " " * 20000,
    }.items():
        text = text.encode() + b"\n"
        prefix = b"\x93NUMPY\1\0" + struct.pack("<H", len(text))
        (place / f"{name}.npy").write_bytes(prefix + text + content[128:])
