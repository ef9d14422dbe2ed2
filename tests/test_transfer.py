import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

from emnist_jax import runs
from emnist_jax.cli.errors import UserError
from emnist_jax.config import compose, make_config
from emnist_jax.data import own
from emnist_jax.runs.transfer import initial_weights
from emnist_jax.train import train_and_evaluate


@pytest.fixture
def image_file(tmp_path, images):
    path = tmp_path / "images.npy"
    np.save(path, np.concatenate([images, images[:20]])[..., 0])
    return path


def settings(tmp_path, **more):
    return {
        "decoder": "model03",
        "validation_fraction": 0.2,
        "batch_size": 8,
        "epochs": 1,
        "workdir": str(tmp_path / "runs"),
        "compilation_cache": False,
        "run_name": "tuned",
        **more,
    }


def weights_for(config):
    architecture = compose.architecture(config)
    return initial_weights(config.init_from, config.freeze, architecture)


def same(tree, other):
    equal = jax.tree.map(np.array_equal, tree, other)
    return all(jax.tree.leaves(equal))


def test_a_run_starts_from_another_and_keeps_its_frozen_half(
    tmp_path, run_path, image_file
):
    config = make_config(
        **settings(tmp_path, images=str(image_file), init_from=str(run_path)),
        freeze="encoder",
    )
    record = train_and_evaluate(config)
    assert record["dataset"]["name"] == "images"
    before, after = (
        runs.load_run(run_path),
        runs.load_run(f"{config.workdir}/tuned"),
    )
    for part in ("encoder", "decoder"):
        kept = same(getattr(before, part)[1], getattr(after, part)[1])
        assert kept == (part == "encoder")
    # Steps on 60 images are few: it ends near where it began, not near chance.
    name = "conv_transpose2"
    kernels = [run.decoder[1][name]["kernel"] for run in (before, after)]
    assert np.abs(kernels[0] - kernels[1]).max() < 0.05
    source = json.loads((after.path / "config.json").read_text())["data"]
    assert len(source["initial_weights_sha256"]) == 64
    # Its weights, and not where they lie, make the run.
    moved = shutil.copytree(run_path, tmp_path / "moved")
    train_and_evaluate(dataclasses.replace(config, init_from=str(moved)))  # finished
    others = dataclasses.replace(config, init_from=None, freeze="none")
    with pytest.raises(UserError, match="data initial_weights_sha256="):
        train_and_evaluate(others)


def test_one_half_is_enough(tmp_path, run_path):
    shutil.copytree(run_path / "encoder", tmp_path / "half" / "encoder")
    config = make_config(init_from=str(tmp_path / "half"), decoder="model01")
    params, _ = weights_for(config)
    assert list(params) == ["encoder"]
    with pytest.raises(UserError, match="--freeze=decoder: .*half holds no decoder/"):
        weights_for(dataclasses.replace(config, freeze="decoder"))


def test_the_architecture_is_that_of_the_run(run_path):
    config = make_config(init_from=str(run_path))
    assert config.decoder == "model03"  # and not the default
    assert list(weights_for(config)[0]) == ["encoder", "decoder"]


def test_another_decoder_learns_from_its_latents(run_path, capsys):
    config = make_config(init_from=str(run_path), decoder="model01")
    assert list(weights_for(config)[0]) == ["encoder"]
    assert "its encoder alone; decoder model01 starts anew" in capsys.readouterr().out


def test_no_weights_without_the_flag():
    assert weights_for(make_config()) == ({}, {})


@pytest.mark.parametrize(
    "change, message",
    [
        (
            {"decoder": "model01", "freeze": "decoder"},
            "its decoder has decoder 'model03', not 'model01'",
        ),
        (
            {"latent_dim": 16},
            "its encoder has latent_dim 32, not 16; give --latent_dim",
        ),
        ({"latent_activation": "relu"}, "give --latent_activation=linear"),
        ({"init_from": "nowhere"}, "--init_from=nowhere: holds no trained model"),
    ],
)
def test_weights_that_do_not_fit_are_refused(change, message, run_path):
    given = {"decoder": "model03", "init_from": str(run_path)} | change
    with pytest.raises(UserError, match=message):
        weights_for(make_config(**given))


def test_damaged_weights_are_refused(run_copy):
    next((run_copy / "encoder").rglob("_METADATA")).write_text("{}")
    config = make_config(decoder="model03", init_from=str(run_copy))
    with pytest.raises(UserError, match="_METADATA is altered"):
        weights_for(config)


def test_own_images(image_file, images):
    dataset = own.load(image_file)
    assert len(dataset.train) + len(dataset.test) == 84
    assert 6 <= len(dataset.test) <= 10
    train = {image.tobytes() for image in dataset.train.images}
    assert not train & {image.tobytes() for image in dataset.test.images}
    row = dataset.test.indices[0]
    np.testing.assert_array_equal(dataset.test.images[0], images[row % 64])
    floats = image_file.with_name("floats.npy")
    np.save(floats, np.load(image_file) / 255)
    again = own.load(floats)
    np.save(floats, (np.load(image_file) + 0.3) / 256)  # no whole 255ths
    rounded = own.load(floats)
    assert len(rounded.train) + len(rounded.test) == 84
    assert again.source["images_sha256"] == dataset.source["images_sha256"]
    assert own.load(image_file).source == dataset.source


@pytest.mark.parametrize(
    "array, message",
    [
        (np.zeros((3, 32, 31), np.uint8), "32x31 pixels, expected an even height"),
        (np.zeros((3, 28, 28), np.uint8), "at least 2 must be"),
        (np.zeros((0, 28, 28), np.uint8), "0 images of which"),
        (np.full((3, 28, 28), 7.0), "values from 7 to 7, expected"),
    ],
)
def test_own_images_that_are_wrong(array, message, tmp_path):
    np.save(tmp_path / "bad.npy", array)
    with pytest.raises(UserError, match=f"--images=.*bad.npy.*{message}"):
        own.load(tmp_path / "bad.npy")


@pytest.mark.parametrize(
    "given, message",
    [
        ({"images": "a.npy", "dataset": "glyphs"}, "does not go with --dataset=glyphs"),
        ({"dataset": "images"}, "--dataset=images: needs --images=FILE.npy"),
        ({"freeze": "encoder"}, "--freeze=encoder: needs --init_from=RUN"),
    ],
)
def test_settings_that_do_not_go_together(given, message):
    with pytest.raises(UserError, match=message):
        make_config(**given)


def test_test_images_of_their_own_are_all_of_the_test(image_file, tmp_path, capsys):
    images = np.load(image_file)
    np.save(tmp_path / "test.npy", np.concatenate([255 - images[:5], images[:2]]))
    dataset = own.load(image_file, tmp_path / "test.npy")
    np.testing.assert_array_equal(dataset.train.images[..., 0], images)
    assert len(dataset.test) == 7
    assert "2 of 7 test images stand in train too" in capsys.readouterr().err
    assert {"images_sha256", "test_images_sha256"} < dataset.source.keys()
    with pytest.raises(UserError, match="--test_images=t.npy: needs --images"):
        make_config(test_images="t.npy")
