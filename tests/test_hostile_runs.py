"""Run folders and data folders that somebody made on purpose."""

import json
import sys

import numpy as np
import orbax.checkpoint as orbax
import pytest
import tensorstore
from emnist_tools import write_archive

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


def reseal(folder):
    """Makes the manifest agree with what else is in the folder."""
    (folder / "manifest.json").write_text(json.dumps(checkpoints._digests(folder)))


def resealed(run_copy, part, **changes):
    """A half whose metadata say something else, with a manifest that agrees."""
    folder = run_copy / part
    about = json.loads((folder / "metadata.json").read_text())
    (folder / "metadata.json").write_text(json.dumps(about | changes))
    reseal(folder)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("latent_dim", x) for x in (10**12, -1, "32", None, 1.5, [32])),
        *(("latent_activation", x) for x in ("os.system", 7, None)),
        *(("image_size", x) for x in ([2**40, 2**40], [28, "28"], [28], 28, None)),
    ],
)
def test_impossible_architectures_take_no_memory(run_copy, field, value):
    resealed(run_copy, "encoder", **{field: value})
    with pytest.raises(UserError, match=field):
        _ = Run(run_copy).encoder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": [2**40], "chunks": [2**40]}, "claims arrays of 4398046511104 bytes"),
        ({"chunks": [2**40]}, r"shape \(500,\) is in chunks of \(1099511627776,\)"),
        ({"chunks": [1]}, r"shape \(500,\) is in chunks of \(1,\)"),
        ({"shape": [2**62, 2**62]}, "not described"),
        ({"dtype": "|O"}, "not described"),
        ({"compressor": {"id": "blosc"}}, "Invalid blosc"),
    ],
)
def test_arrays_that_claim_too_much_take_no_memory(tmp_path, change, message):
    folder = tmp_path / "c"
    checkpoints.save(folder, {"w": np.arange(500, dtype=np.float32)}, {})
    spec = {"driver": "ocdbt", "base": f"file://{folder}/"}
    database = tensorstore.KvStore.open(spec).result()
    stored = json.loads(database.read("w/.zarray").result().value)
    changed = json.dumps(stored | change).encode()
    database.write("w/.zarray", changed).result()
    reseal(folder)
    with pytest.raises(UserError, match=message) as error:
        checkpoints.load(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("key", ["{}/secret", "../victim/secret", "file://{}/secret"])
def test_names_of_parameters_lead_nowhere(tmp_path, key):
    """Outside of a database Orbax would read the array of a name that is a path."""
    victim, folder = tmp_path / "victim", tmp_path / "evil"
    checkpointer = orbax.Checkpointer(orbax.PyTreeCheckpointHandler(use_ocdbt=False))
    tree = {"secret": np.full(5, 42, np.float32)}
    checkpointer.save(victim, args=orbax.args.PyTreeSave(tree))
    assert (victim / "secret" / ".zarray").exists()
    key = key.format(victim)
    value = {"value_type": "np.ndarray", "skip_deserialize": False}
    entry = {"key_metadata": [{"key": key, "key_type": 2}], "value_metadata": value}
    about = json.loads((victim / "_METADATA").read_text())
    about["tree_metadata"] = {str((key,)): entry}
    folder.mkdir()
    (folder / "_METADATA").write_text(json.dumps(about))
    (folder / "metadata.json").write_text("{}")
    reseal(folder)
    with pytest.raises(UserError, match="its arrays are not in one database"):
        checkpoints.load(folder)


def test_a_database_reads_no_file_elsewhere(tmp_path):
    """OCDBT names its data files: the driver takes none outside of its folder."""
    for prefix in ("../outside/", f"{tmp_path}/outside/"):
        spec = {"driver": "ocdbt", "base": f"file://{tmp_path}/a/"}
        database = tensorstore.KvStore.open(spec | {"value_data_prefix": prefix})
        with pytest.raises(ValueError, match="Invalid key"):
            database.result().write("k", bytes(5000)).result()


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
