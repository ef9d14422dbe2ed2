# %% [markdown]
# # Small images as 32 numbers, and as few bytes as possible
#
# The story of the published notebook ([Neural Compression with
# Autoencoders](https://github.com/mdhabibi/Neural-Compression-with-Autoencoders)) in
# this codebase: data, model, training, reconstructions and latents; and past it, files
# that give every pixel back. Under five minutes on two cores, no download.
#
# This page is `docs/tour.py`; `docs/tour.ipynb` is made from it by
# `python -m tests.tools.notebook`.

# %%
# Where the package is not installed (Colab): upload its wheel beside this notebook, or
# put the address of the repository here, git+https://... What was loaded before then
# and is newer now needs a restart: this says so, once.
PACKAGE = "emnist_jax-0.1.0-py3-none-any.whl"

import importlib.metadata
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("emnist_jax") is None:
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", PACKAGE], check=True)
    for name in ("numpy", "matplotlib", "jax"):
        module = sys.modules.get(name)
        if module and module.__version__ != importlib.metadata.version(name):
            sys.exit(f"installed, and {name} anew: restart the runtime, run all again")

# %%
import bz2
import io
import os

import numpy as np
from PIL import Image

import emnist_jax
from emnist_jax import codec, data
from emnist_jax.config import make_config
from emnist_jax.models.autoencoder import Autoencoder
from emnist_jax.models.registry import DECODERS
from emnist_jax.models.table import layer_table, total
from emnist_jax.storage import shipped
from emnist_jax.train import train_and_evaluate

ARCHIVE = os.environ.get("EMNIST_ARCHIVE")  # a copy of EMNIST in any form
IMAGES = int(os.environ.get("TOUR_IMAGES", 4_000))  # to train on
EPOCHS = int(os.environ.get("TOUR_EPOCHS", 5))
SHOWN = 16  # images a row


def show(*rows):
    """Rows of images, uint8 [N, 28, 28, 1], as one picture of twice the size."""
    lines = [np.hstack([*row[:SHOWN, ..., 0]]) for row in rows]
    sheet = np.vstack(lines)
    return Image.fromarray(sheet).resize(2 * np.array(sheet.shape[::-1]))


def to_bytes(images):
    """Floats in [0, 1] as uint8."""
    return np.round(255 * images).astype(np.uint8)


# %% [markdown]
# ## Data
#
# EMNIST-Balanced: 28x28 gray characters of 47 classes. Without a copy of it the glyphs,
# handwriting-like characters drawn from code, stand in. (`"emnist/balanced"` without an
# archive downloads 560 MB from NIST, once.)

# %%
DATASET = "emnist/balanced" if ARCHIVE else "glyphs"
dataset = data.load(DATASET, emnist_archive=ARCHIVE)
test = dataset.test.images
print(
    f"{dataset.source['title']}: {len(dataset.train):,} images to train on, "
    f"{len(test):,} to test on, {len(dataset.class_names)} classes"
)
show(test[:SHOWN], test[SHOWN:])

# %% [markdown]
# ## Sizes
#
# What the published study sets out from: its 112,800 training images as bytes, as the
# floats a network computes with, and as 32 floats each (its MB are 2^20 bytes).

# %%
PIXELS, LATENTS = 112_800 * 28 * 28, 112_800 * 32
for name, size in {
    "uint8": PIXELS,
    "float32": 4 * PIXELS,
    "32 latents": 4 * LATENTS,
}.items():
    print(f"{name:<12}{size / 2**20:>8.1f} MB{8 * size / PIXELS:>8.3f} bits per pixel")

# %% [markdown]
# ## Model
#
# One encoder and four decoders, `model01` to `model04`, which differ in the layer that
# doubles the size.

# %%
for name in DECODERS:
    rows = layer_table(Autoencoder(name))
    parameters, work = total(rows, "parameters"), total(rows, "multiply_adds")
    print(f"{name}: {parameters:,} parameters, {work / 1e6:.1f} million multiply-adds")

# %% [markdown]
# ## Weights that come with the package
#
# Trained on all images for hours; nothing to wait for. Originals above, what comes back
# from 32 numbers below.

# %%
picture = None
if names := shipped.names():
    pretrained = emnist_jax.load_run(names[0])
    chosen = test[:SHOWN]
    picture = show(chosen, to_bytes(pretrained.decode(pretrained.encode(chosen))))
print(", ".join(names) or "none in this version")
picture

# %% [markdown]
# ## Training
#
# The same as `emnist-jax train --decoder=model03 --train_examples=4000 --epochs=5`. All
# of it, also what it says at the end, lies in a folder; the same call again finds it
# finished.

# %%
config = make_config(
    decoder="model03",
    dataset=DATASET,
    emnist_archive=ARCHIVE,
    train_examples=IMAGES,
    test_examples=min(len(test), IMAGES),
    epochs=EPOCHS,
    batch_size=128 if IMAGES >= 1_000 else 8,
)
results = train_and_evaluate(config)
run = emnist_jax.load_run(os.path.join(config.workdir, config.name))

# %%
Image.open(run.path / "figures" / "loss.png")

# %% [markdown]
# ## Reconstructions
#
# Test images, above what comes back. More training makes them sharper: all of EMNIST
# and 15 epochs reach a mean squared error of 0.0028.

# %%
chosen = test[:SHOWN]
show(chosen, to_bytes(run.decode(run.encode(chosen))))

# %% [markdown]
# The best and the worst of the test images; `results.json` has every figure.

# %%
quality = results["test"]["autoencoder"]
print(
    f"MSE {quality['mse']:.5f}, PSNR {quality['psnr']:.2f} dB, "
    f"SSIM {quality['ssim']:.4f}"
)
Image.open(run.path / "figures" / "best_and_worst.png")

# %% [markdown]
# ## Latents
#
# Every run exports them, row i for image i. A latent that is the same for all images
# is dead: the published recipe lost up to 19 of 32 so.

# %%
latents = np.load(run.path / "latents" / "test.npy")  # float32 [N, 32]
spread = latents.std(axis=0)
print(
    f"{latents.shape[0]:,} x {latents.shape[1]}, {(spread == 0).sum()} dead; standard "
    f"deviations {spread.min():.2f} to {spread.max():.2f}"
)

# %% [markdown]
# The straight line between the latents of two characters, decoded: a walk from one to
# the other.

# %%
first, last = run.encode(test[:2])
steps = np.linspace(0, 1, SHOWN, dtype=np.float32)[:, None]
show(to_bytes(run.decode((1 - steps) * first + steps * last)))

# %% [markdown]
# ## Files
#
# 32 floats are 128 bytes an image, and lose something. The codec's pixel models need
# fewer for every pixel as it was; `max_error` bounds how far a pixel may be off; and
# latents, quantised and coded, are smaller still. (The pixel models know EMNIST, of
# which they make 0.90 bits per pixel; the glyphs are strangers to them.)

# %%
chosen = test[: min(len(test), IMAGES, 200)]


def png(image):
    """An image [28, 28, 1] as a PNG."""
    file = io.BytesIO()
    Image.fromarray(image[..., 0]).save(file, "PNG", optimize=True)
    return file.getvalue()


near = codec.compress(chosen[..., 0], mode="near-lossless", max_error=4)
files = {
    "codec, lossless": codec.compress(chosen[..., 0]),
    "codec, max_error=4": near,
    "codec, latents of 6 bits": codec.compress(chosen, mode="latent", run=run, bits=6),
    "float32 latents": run.encode(chosen).tobytes(),
    "bzip2": bz2.compress(chosen.tobytes()),
    "PNG": b"".join(map(png, chosen)),
}
for name, content in files.items():
    print(
        f"{name:<26}{len(content) / len(chosen):>7.1f} bytes an image"
        f"{8 * len(content) / chosen.size:>8.3f} bits per pixel"
    )

# %%
back = codec.decompress(files["codec, lossless"])
assert (back == chosen[..., 0]).all()  # every pixel
back = codec.decompress(near)
print("largest error:", np.abs(back.astype(int) - chosen[..., 0]).max())
show(chosen, back[..., None])

# %% [markdown]
# ## On from here
#
# * `emnist-jax train --decoder=model03`: all of EMNIST, or `--images=` your own.
# * `emnist-jax codec compress IMAGES FILE.ejx`: any images, any tool can read the
#   format's description and decode it (`docs/codec_format.md`).
# * `emnist-jax explore --run=RUN`: a page to draw on, to play with this very run.
