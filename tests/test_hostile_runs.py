"""Run folders and data folders that somebody made on purpose."""

import json
import sys

import jax
import numpy as np
import pytest
from test_data_archive import write_archive

from emnist_jax import load_run, train
from emnist_jax.cli.errors import UserError
from emnist_jax.data import emnist
from emnist_jax.runs import Run
from emnist_jax.storage import checkpoints, files
from emnist_jax.storage.results import load_results, read_metrics

DEEP = '{"a":' * 100_000 + "1" + "}" * 100_000


@pytest.mark.parametrize(
    "content", [DEEP, "[" * 100_000, "", '"text"', '{"config": {"latent_dim": NaN}}']
)
def test_json_of_any_kind_is_one_line(run_copy, content):
    for name in ("config.json", "results.json", "encoder/metadata.json"):
        (run_copy / name).write_text(content)
    run = load_run(run_copy)
    for read in (
        lambda: run.config["decoder"],
        lambda: load_results(run_copy)["test"]["autoencoder"],
        lambda: run.encoder,
    ):
        with pytest.raises((UserError, KeyError, TypeError)) as error:
            read()
        assert len(str(error.value)) < 1000
    assert train._finished(run) is None


def test_json_too_large_is_not_read(tmp_path, monkeypatch):
    path = tmp_path / "config.json"
    with open(path, "wb") as file:
        file.truncate(files.LARGEST_JSON + 1)  # a hole that takes no room
    with pytest.raises(UserError, match="bytes are more than"):
        files.read_json(path)


def test_deep_lines_of_a_log_are_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(DEEP + "\n" + "[" * 100_000 + "\n")
    warnings = []
    assert read_metrics(path, warnings.append) == []
    assert len(warnings) == 2


@pytest.mark.parametrize("name", ["/etc/passwd", "../results.json", "d/../../x"])
def test_a_manifest_leads_nowhere(run_copy, name):
    path = run_copy / "encoder" / "manifest.json"
    listed = json.loads(path.read_text())
    path.write_text(json.dumps(listed | {name: "0" * 64}))
    with pytest.raises(checkpoints.DamagedCheckpoint, match="is missing"):
        checkpoints.load(run_copy / "encoder")


def resealed(run_copy, part, **changes):
    """A half whose metadata say something else, with a manifest that agrees."""
    folder = run_copy / part
    about = json.loads((folder / "metadata.json").read_text())
    (folder / "metadata.json").write_text(json.dumps(about | changes))
    digests = checkpoints._digests(folder)
    (folder / "manifest.json").write_text(json.dumps(digests))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("latent_dim", x) for x in (10**12, -1, "32", None, 1.5, [32])),
        *(("latent_activation", x) for x in ("os.system", 7, None)),
    ],
)
def test_impossible_architectures_take_no_memory(run_copy, field, value):
    resealed(run_copy, "encoder", **{field: value})
    with pytest.raises(UserError, match=field):
        _ = Run(run_copy).encoder


def test_a_checkpoint_that_claims_too_much_is_not_read(run_path, monkeypatch):
    claims = {"a": jax.ShapeDtypeStruct((2**40,), np.float32)}
    with pytest.raises(ValueError, match="it claims arrays of 4398046511104 bytes"):
        checkpoints._expect_size(claims)
    asked = []
    monkeypatch.setattr(checkpoints, "_expect_size", asked.append)
    checkpoints.load(run_path / "encoder")
    assert jax.tree.leaves(asked[0], is_leaf=lambda x: hasattr(x, "shape"))


def test_tfds_files_name_no_classes_to_import(tmp_path, monkeypatch):
    """What tfds stores of features names Python classes: nothing follows them."""
    archive = tmp_path / "gzip.zip"
    write_archive(archive)
    load = lambda: emnist.load(  # noqa: E731
        "balanced", data_dir=tmp_path / "data", emnist_archive=archive
    )
    load()
    (tmp_path / "planted.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    for path in (tmp_path / "data").rglob("features.json"):
        content = json.loads(path.read_text())
        content["pythonClassName"] = "planted.Features"
        path.write_text(json.dumps(content))
        changed = path
    assert changed
    for path in (tmp_path / "data").rglob("*.npy"):
        path.unlink()  # so that tfds' own files are read again
    dataset = load()
    assert len(dataset.train) > 0 and "planted" not in sys.modules
