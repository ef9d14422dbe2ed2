import json
import re

import numpy as np
import pytest
from codec_models import strokes

import emnist_jax
from emnist_jax import evaluate
from emnist_jax.cli.errors import UserError
from emnist_jax.config import make_config
from emnist_jax.storage import shipped
from emnist_jax.storage.results import load_results


@pytest.fixture
def home(tmp_path, run_path, monkeypatch):
    """Shipped weights, as they are made of a run."""
    shipped.pack(emnist_jax.load_run(run_path), "model03", tmp_path)
    monkeypatch.setattr(shipped, "_HOME", tmp_path)
    return tmp_path


def test_what_ships_knows_handwriting():
    assert "pretrained/model02" in shipped.names()
    images = strokes(16)[..., None]
    for name in shipped.names():
        run = emnist_jax.load_run(name)
        error = np.square(run.reconstruct(images) - images / 255).mean(axis=(1, 2, 3))
        assert np.median(error) < 0.02
        size = sum(f.stat().st_size for f in run.path.rglob("*") if f.is_file())
        assert size <= 2.2e6
        card = (run.path / "results.json").read_text()
        assert json.loads(card)["config"]["decoder"] == run.path.name
        assert not re.search(r'"[^"]*/(home|work|tmp|root)/', card)


def test_weights_that_are_packed_are_those_of_the_run(home, run_path, images):
    run, own = emnist_jax.load_pretrained("model03"), emnist_jax.load_run(run_path)
    assert run.path == home / "model03"
    assert run.encoder[1]["latent"]["kernel"].dtype == np.float32
    difference = run.reconstruct(images) - own.reconstruct(images)
    assert 0 < np.abs(difference).max() < 5e-3  # they are float16
    card = json.loads((run.path / "results.json").read_text())
    assert card["status"] == "finished" and card["test"]["autoencoder"]
    assert "workdir" in card["config"] and str(run_path.parent) not in json.dumps(card)
    with pytest.raises(UserError, match="something else"):
        shipped.pack(own, "model03", home)


def test_a_name_is_one_of_the_shipped_ones_or_a_folder(home, monkeypatch):
    assert shipped.names() == ["pretrained/model03"]
    with pytest.raises(UserError, match="m: no such.*there are pretrained/model03;"):
        emnist_jax.load_run("pretrained/m", flag="--run")
    assert str(shipped.folder_of("./pretrained/m")) == "pretrained/m"


def test_evaluation_writes_elsewhere(home, images, tmp_path, capsys):
    np.save(tmp_path / "mine.npy", images)
    call = ["--run=pretrained/model03", f"--images={tmp_path / 'mine.npy'}"]
    before = sorted((home / "model03").rglob("*"))
    with pytest.raises(UserError, match="stays as it is; .* --out=FOLDER"):
        evaluate.main(call)
    evaluate.main([*call, f"--out={tmp_path / 'out'}"])
    record = load_results(tmp_path / "out" / "results-images.json")
    error = np.square(
        emnist_jax.load_pretrained("model03").reconstruct(images) - images / 255
    ).mean()
    assert record["test"]["autoencoder"]["mse"] == pytest.approx(error, rel=1e-4)
    assert record["dataset"]["title"] == "own images"
    assert sorted((home / "model03").rglob("*")) == before
    assert "own images, 64 test images" in capsys.readouterr().out
    with pytest.raises(UserError, match="name images with --images or --dataset"):
        evaluate.main([call[0], f"--out={tmp_path / 'out'}"])
    with pytest.raises(UserError, match="give it or --dataset, not both"):
        evaluate.main([*call, "--dataset=glyphs", f"--out={tmp_path / 'out'}"])


def test_init_from_inherits_what_they_are(home):
    config = make_config(init_from="pretrained/model03")
    assert config.decoder == "model03"


def test_damage_is_noticed(home):
    data = max((home / "model03" / "encoder" / "d").iterdir())
    held = data.read_bytes()
    data.write_bytes(held[:-1] + bytes([held[-1] ^ 1]))  # whatever it was
    with pytest.raises(UserError, match="model03/encoder"):
        _ = emnist_jax.load_pretrained("model03").encoder
