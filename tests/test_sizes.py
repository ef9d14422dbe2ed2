"""Images of other sizes than EMNIST's: the whole road at 12x20, shapes at many."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
from test_hostile_runs import reseal

from emnist_jax import codec, evaluate, latents, runs
from emnist_jax.cli.errors import UserError
from emnist_jax.config import compose, make_config
from emnist_jax.models import metrics
from emnist_jax.models.autoencoder import Autoencoder
from emnist_jax.models.registry import DECODERS
from emnist_jax.runs import plots
from emnist_jax.runs.transfer import initial_weights
from emnist_jax.storage.arrays import check_images
from emnist_jax.train import train_and_evaluate

KEY = jax.random.key(0)


def cropped(images, height=12, width=20):
    return np.ascontiguousarray(images[:40, 8 : 8 + height, 4 : 4 + width, 0])


@pytest.fixture(scope="module")
def small(tmp_path_factory, images):
    """A run on 40 images of 12x20: its config and its results."""
    place = tmp_path_factory.mktemp("small")
    np.save(place / "crops.npy", cropped(images))
    config = make_config(
        images=str(place / "crops.npy"),
        decoder="model03",
        validation_fraction=0.2,
        batch_size=8,
        epochs=1,
        workdir=str(place),
        run_name="small",
        compilation_cache=False,
    )
    return config, train_and_evaluate(config)


@pytest.fixture(scope="module")
def small_path(small):
    return f"{small[0].workdir}/small"


@pytest.mark.parametrize("size", [(8, 8), (30, 30), (24, 40), (128, 8)])
@pytest.mark.parametrize("decoder", [*DECODERS])
def test_every_decoder_gives_the_size_back(decoder, size):
    model = Autoencoder(decoder, image_size=size)
    images = jax.ShapeDtypeStruct((2, *size, 1), np.float32)
    outputs, variables = jax.eval_shape(model.init_with_output, KEY, images)
    assert outputs.images.shape == images.shape
    flat = size[0] * size[1] // 4 * 64
    params = variables["params"]
    assert params["encoder"]["latent"]["kernel"].shape == (flat, 32)
    assert params["decoder"]["dense"]["kernel"].shape == (32, flat)


@pytest.mark.long
def test_what_a_run_says_of_its_size(small, small_path):
    _, record = small
    assert record["dataset"]["image_size"] == [12, 20]
    assert record["sizes"]["images_uint8_bytes"] == 36 * 12 * 20
    shapes = {row["name"]: row["output_shape"] for row in record["model"]["layers"]}
    assert shapes["conv4"] == (6, 10, 64) and shapes["output"] == (12, 20, 1)
    assert np.isfinite(record["test"]["autoencoder"]["ssim"])
    run = runs.load_run(small_path)
    assert run.image_size == run.decoder_image_size == (12, 20)


@pytest.mark.long
def test_images_become_latents_and_images_again(small, small_path, tmp_path):
    run, source = runs.load_run(small_path), small[0].images
    there, back = tmp_path / "latents.npy", tmp_path / "images.npy"
    assert latents.convert(run, source, there) == (40, 32)
    assert latents.convert(run, there, back, decode=True) == (40, 12, 20, 1)
    again = np.round(255 * run.reconstruct(np.load(source)))
    np.testing.assert_array_equal(np.load(back), again)
    assert run.decode(np.zeros((0, 32))).shape == (0, 12, 20, 1)


@pytest.mark.long
def test_it_is_evaluated_again_and_resumed(small, small_path, tmp_path, capsys):
    config, record = small
    evaluate.main([f"--run={small_path}", f"--out={tmp_path / 'again'}"])
    again = json.loads((tmp_path / "again" / "results.json").read_text())
    assert again["test"] == json.loads(json.dumps(record["test"]))
    assert again["dataset"] == record["dataset"]
    train_and_evaluate(config)
    assert "is finished" in capsys.readouterr().out


@pytest.mark.long
def test_latents_in_a_compressed_file(small_path, run_path, images):
    run, crops = runs.load_run(small_path), cropped(images)
    content = codec.compress(crops, mode="latent", run=run, refine=0)
    found = codec.decompress(content, run=run)
    assert found.shape == crops.shape
    expected = np.round(255 * run.reconstruct(crops)[..., 0])
    assert np.abs(found - expected).mean() < 2  # levels are rounded
    turned = np.ascontiguousarray(crops.transpose(0, 2, 1))
    with pytest.raises(UserError, match="20x12 pixels, but run is of 12x20"):
        codec.compress(turned, mode="latent", run=run)


@pytest.mark.long
def test_sizes_that_do_not_go_together(small, small_path, run_path, images, tmp_path):
    large = tmp_path / "large.npy"
    np.save(large, images)
    run = runs.load_run(small_path)
    trained = "28x28 pixels, but the images that trained have 12x20"
    with pytest.raises(UserError, match=f"large.npy: {trained}"):
        latents.convert(run, large, tmp_path / "latents.npy")
    with pytest.raises(UserError, match=trained):
        run.encode(images)
    with pytest.raises(UserError, match=f"--test_images={large}: {trained}"):
        compose.select(dataclasses.replace(small[0], test_images=str(large)))
    with pytest.raises(UserError, match="12x20 pixels, but the images of glyphs have"):
        out = f"--out={tmp_path / 'out'}"
        evaluate.main([f"--run={small_path}", "--dataset=glyphs", out])
    architecture = compose.architecture(small[0], (28, 28))
    with pytest.raises(UserError, match="encoder is of 12x20 pixels, but the images "):
        initial_weights(small_path, "none", architecture)
    mixed = tmp_path / "mixed"
    shutil.copytree(small_path, mixed)
    shutil.rmtree(mixed / "decoder")
    shutil.copytree(run_path / "decoder", mixed / "decoder")
    with pytest.raises(UserError, match="encoder is of 12x20 pixels, its decoder of 2"):
        evaluate.main([f"--run={mixed}"])


@pytest.mark.long
def test_settings_that_do_not_suit_a_size(small):
    config = dataclasses.replace(small[0], shift_pixels=7)
    with pytest.raises(UserError, match="--shift_pixels=7: is more than half of .* 12"):
        train_and_evaluate(config)
    config = dataclasses.replace(small[0], latent_dim=2000)
    with pytest.raises(UserError, match="--latent_dim=2000: with images of 128x128 "):
        compose.check_size(config, (128, 128), 2000 * 2 * 64 * 64 * 64)


@pytest.mark.parametrize(
    "shape, message",
    [
        ((2, 27, 28), "27x28 pixels, expected an even height and width from 8 to 128"),
        ((2, 28, 6), "28x6 pixels"),
        ((2, 130, 28), "130x28 pixels"),
        ((2, 32, 32, 3), "colour images: .* only one channel"),
        ((2, 32, 32, 4), "colour images"),
        ((2, 32, 32, 2), r"\(2, 32, 32, 2\), expected \[N, height, width, 1\]"),
        ((2, 784), r"expected \[N, height, width, 1\]"),
    ],
)
def test_images_that_no_run_takes(shape, message):
    with pytest.raises(UserError, match=f"^images: .*{message}"):
        check_images(np.zeros(shape, np.uint8))


def test_ssim_of_small_images_has_a_smaller_window(images):
    crops = images[:6, 9:17, 9:19] / np.float32(255)
    one, other = crops[:3], crops[3:]
    ours = metrics.ssim(one, other)
    np.testing.assert_array_equal(ours, metrics.ssim(one, other, window=7))
    assert np.isfinite(ours).all()


def test_runs_without_a_size_are_of_emnists(run_copy, finished):
    """As earlier versions left them."""
    for part in ("encoder", "decoder"):
        path = run_copy / part / "metadata.json"
        about = json.loads(path.read_text())
        assert about.pop("image_size") == [28, 28]
        path.write_text(json.dumps(about))
        reseal(run_copy / part)
    run = runs.load_run(run_copy)
    assert run.image_size == run.decoder_image_size == (28, 28)
    stored = json.loads((run_copy / "config.json").read_text())
    assert stored["data"].pop("image_size") == [28, 28]
    (run_copy / "config.json").write_text(json.dumps(stored))
    config = dataclasses.replace(finished[0], workdir=str(run_copy.parent))
    assert train_and_evaluate(config)["status"] == "finished"


@pytest.mark.parametrize("size", [(64, 24), (28, 28), (8, 64)])
def test_rows_of_a_figure_lie_apart(size):
    images = np.zeros((10, *size, 1), np.uint8)
    figure = plots.image_grid([("a", images)] * 3, {0: np.zeros(10)})
    figure.canvas.draw()
    boxes = [image.get_window_extent() for image in figure.axes[0].images]
    texts = [t.get_window_extent() for t in figure.axes[0].texts if t.get_text() != "a"]
    assert len(texts) == 10
    tops, bottoms = ([box.y1 for box in boxes[::10]], [box.y0 for box in boxes[::10]])
    assert all(text.y1 <= bottoms[0] and text.y0 >= tops[1] for text in texts)
    assert bottoms[1] > tops[2]
    plots.plt.close(figure)
