import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from PIL import Image

import emnist_jax
from emnist_jax import latents
from emnist_jax.cli.errors import UserError
from emnist_jax.storage.arrays import open_array


@pytest.fixture(scope="module")
def run(run_path):
    return emnist_jax.load_run(run_path)


@pytest.fixture
def images_file(images, tmp_path):
    np.save(tmp_path / "images.npy", images)
    return tmp_path / "images.npy"


@pytest.mark.parametrize("size", [1, 7])
def test_batches_do_not_change_results(run, images, size):
    latents, outputs = run.encode(images), run.reconstruct(images)
    parts = [images[i : i + size] for i in range(0, 3 * size, size)]
    ours = np.concatenate([run.encode(part) for part in parts])
    np.testing.assert_array_equal(ours, latents[: len(ours)])
    ours = np.concatenate([run.reconstruct(part) for part in parts])
    np.testing.assert_array_equal(ours, outputs[: len(ours)])


def test_streams_longer_than_a_call(run, images, tmp_path):
    many = np.concatenate([images] * 5)  # 320 of 256 at once
    np.save(tmp_path / "many.npy", many)
    latents.convert(run, tmp_path / "many.npy", tmp_path / "out.npy")
    np.testing.assert_array_equal(
        np.load(tmp_path / "out.npy"), np.concatenate([run.encode(images)] * 5)
    )


def test_python_calls(run, images):
    encoded = run.encode(images)
    assert encoded.shape == (64, 32) and encoded.dtype == np.float32
    np.testing.assert_array_equal(run.encode(images[..., 0]), encoded)
    floats = images.astype(np.float64) / 255
    np.testing.assert_allclose(run.encode(floats), encoded, atol=1e-5)
    np.testing.assert_array_equal(run.reconstruct(images), run.decode(encoded))
    assert run.encode(images[:0]).shape == (0, 32)
    assert run.decode(encoded[:0]).shape == (0, 28, 28, 1)


@pytest.mark.parametrize(
    "bad, message",
    [
        (np.zeros((3, 28, 27, 1), np.uint8), "28x27 pixels, but the images that"),
        (np.zeros((28, 28), np.uint8), r"shape \(28, 28\), expected"),
        (np.zeros((3, 28, 28, 3), np.uint8), "colour images"),
        (np.zeros((3, 28, 28), np.int64), "type int64, expected uint8"),
        (np.zeros((3, 28, 28), complex), "type complex128, expected uint8"),
        (np.full((3, 28, 28), 2.0), "values from 2 to 2, expected"),
        (np.full((3, 28, 28), -0.1), "values from -0.1 to -0.1"),
        (np.full((3, 28, 28), np.nan), "not finite"),
    ],
)
def test_bad_images_are_refused(run, bad, message):
    with pytest.raises(UserError, match=message):
        run.encode(bad)


@pytest.mark.parametrize(
    "bad, message",
    [
        (np.zeros((3, 31), np.float32), r"shape \(3, 31\), expected \[N, 32\]"),
        (np.zeros(32, np.float32), "expected"),
        (np.zeros((3, 32), np.int8), "type int8, expected floats"),
        (np.full((3, 32), np.inf), "not finite"),
    ],
)
def test_bad_latents_are_refused(run, bad, message):
    with pytest.raises(UserError, match=message):
        run.decode(bad)


def test_command_there_and_back(run, run_path, images_file, images, tmp_path):
    out, back = tmp_path / "latents.npy", tmp_path / "back.npy"
    call = [sys.executable, "-m", "emnist_jax.latents", f"--run={run_path}"]
    there = subprocess.run(
        [*call, f"--images={images_file}", f"--out={out}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert there.returncode == 0, there.stderr
    np.testing.assert_allclose(np.load(out), run.encode(images), atol=1e-6, rtol=1e-6)
    latents.convert(run, out, back, decode=True)
    expected = np.round(255 * run.reconstruct(images))
    assert np.load(back).dtype == np.uint8
    assert np.abs(np.load(back) - expected).max() <= 1


def test_half_a_run_is_enough(run_copy, images_file, tmp_path):
    shutil.rmtree(run_copy / "decoder")
    out = tmp_path / "latents.npy"
    run = emnist_jax.load_run(run_copy)
    latents.convert(run, images_file, out)
    with pytest.raises(UserError, match="decoder is missing"):
        latents.convert(run, out, tmp_path / "back.npy", decode=True)
    assert not (tmp_path / "back.npy").exists()


@pytest.mark.parametrize(
    "form", ["fortran", "big-endian", "3d", "big-endian floats", "empty", "zip"]
)
def test_files_in_other_orders_are_read_correctly(run, images, tmp_path, form):
    array = images
    if form == "fortran":
        array = np.asfortranarray(images)
    elif form == "big-endian":
        array = images.astype(">u1")
    elif form == "big-endian floats":
        array = (images / 255).astype(">f8")
    elif form == "3d":
        array = images[..., 0]
    elif form == "empty":
        array = images[:0]
    np.save(tmp_path / "in.npy", array)
    if form == "zip":
        with zipfile.ZipFile(tmp_path / "in.npy", "w") as pictures:
            for row, image in enumerate(images[..., 0]):
                Image.fromarray(image).save(tmp_path / "x.png")
                pictures.write(tmp_path / "x.png", f"{row}.png")
    latents.convert(run, tmp_path / "in.npy", tmp_path / "out.npy")
    np.testing.assert_allclose(
        np.load(tmp_path / "out.npy"), run.encode(images[: len(array)]), atol=1e-5
    )


def write(path, content):
    path.write_bytes(content)
    return path


def test_files_that_are_no_arrays(tmp_path, images):
    np.save(tmp_path / "objects.npy", np.array([{}, 3], object))
    np.save(tmp_path / "whole.npy", images)
    np.savez(tmp_path / "many.npz", a=images)
    content = (tmp_path / "whole.npy").read_bytes()
    huge = content.replace(b"(64, 28", b"(64000000000000, 28", 1)
    cases = {
        tmp_path / "objects.npy": "pickled Python objects",
        write(tmp_path / "short.npy", content[:-1]): "is cut short",
        write(tmp_path / "header.npy", content[:60]): "not a NumPy .npy",
        write(tmp_path / "huge.npy", huge): "not a NumPy .npy",
        write(tmp_path / "none.npy", b""): "not a NumPy .npy",
        write(tmp_path / "text.npy", b"hello world, not an array"): "not a NumPy .npy",
        tmp_path / "many.npz": "not a NumPy .npy",
        tmp_path / "missing.npy": "No such file",
        tmp_path: "Is a directory",
    }
    for path, message in cases.items():
        with pytest.raises(UserError, match=message) as error:
            open_array(path)
        assert "\n" not in str(error.value) and str(path) in str(error.value)


def test_out_may_not_be_the_input(run, images_file, images):
    with pytest.raises(UserError, match="is the input file itself"):
        latents.convert(run, images_file, images_file)
    np.testing.assert_array_equal(np.load(images_file), images)


def test_nothing_is_left_of_a_failed_export(run, images, tmp_path):
    bad = images.astype(np.float32) / 255
    bad[60] = 2  # in the last batch
    np.save(tmp_path / "bad.npy", bad)
    (tmp_path / "out.npy").write_text("old")
    with pytest.raises(UserError, match=r"bad.npy: values from"):
        latents.convert(run, tmp_path / "bad.npy", tmp_path / "out.npy")
    assert (tmp_path / "out.npy").read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.npy", "out.npy"]
