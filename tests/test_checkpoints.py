import shutil

import jax.numpy as jnp
import numpy as np
import pytest

from emnist_jax.cli.errors import UserError
from emnist_jax.storage import checkpoints
from emnist_jax.storage.checkpoints import DamagedCheckpoint, StepCheckpoints

TREE = {"a": {"w": np.arange(5000, dtype=np.float32), "b": jnp.ones((2, 3))}, "n": 3}


def damage(folder, kind):
    """Truncates, flips a bit of, removes or adds a file; returns its name."""
    largest = max(folder.rglob("*"), key=lambda p: p.stat().st_size * p.is_file())
    content = bytearray(largest.read_bytes())
    if kind == "truncate":
        largest.write_bytes(content[:-7])
    elif kind == "flip":
        content[len(content) // 2] ^= 4
        largest.write_bytes(content)
    elif kind == "remove":
        largest.unlink()
    elif kind == "manifest":
        (folder / "manifest.json").write_text('{"files": 3}')
    elif kind == "torn manifest":
        text = (folder / "manifest.json").read_text()
        (folder / "manifest.json").write_text(text[: len(text) // 2])
    elif kind == "no manifest":
        (folder / "manifest.json").unlink()


KINDS = ["truncate", "flip", "remove", "manifest", "torn manifest", "no manifest"]


def test_round_trip(tmp_path):
    checkpoints.save(tmp_path / "c", TREE, {"epoch": 1, "loss": 0.1})
    tree, metadata = checkpoints.load(tmp_path / "c")
    assert metadata == {"epoch": 1, "loss": 0.1}
    np.testing.assert_array_equal(tree["a"]["w"], TREE["a"]["w"])
    assert isinstance(tree["a"]["b"], np.ndarray) and tree["n"] == 3
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


def test_saving_again_replaces(tmp_path):
    checkpoints.save(tmp_path / "c", {"w": np.zeros(3)}, {})
    checkpoints.save(tmp_path / "c", {"w": np.ones(3)}, {})
    np.testing.assert_array_equal(checkpoints.load(tmp_path / "c")[0]["w"], np.ones(3))
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_named(tmp_path, kind):
    folder = tmp_path / "c"
    checkpoints.save(folder, TREE, {})
    damage(folder, kind)
    with pytest.raises(DamagedCheckpoint, match="is damaged: .*(d/|manifest)"):
        checkpoints.load(folder)


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(DamagedCheckpoint, match="No such file"):
        checkpoints.load(tmp_path / "nothing")


@pytest.mark.parametrize(
    "tree, message",
    [
        ({"w": np.zeros(3)}, r"lacks parameter \['b'\]"),
        ({"w": np.zeros(3), "b": 0, "c": 0}, r"has an unknown parameter \['c'\]"),
        ({"w": np.zeros(4), "b": 0}, r"\['w'\] has shape \(4,\), expected \(3,\)"),
    ],
)
def test_another_structure_is_refused(tree, message):
    with pytest.raises(UserError, match=message):
        checkpoints.restore_like({"w": np.zeros(3), "b": 0}, tree, "path")


@pytest.fixture
def steps(tmp_path):
    warnings = []
    store = StepCheckpoints(tmp_path, warnings.append)
    store.warnings = warnings
    return store


def save(store, step, best):
    store.save(step, {"w": np.full(1000, step)}, {"step": step}, best)


def test_latest_two_and_best_are_kept(steps):
    assert steps.latest() is None
    for step in range(1, 6):
        save(steps, step, best=2 if step >= 2 else 1)
    assert steps.steps() == [2, 4, 5]
    assert steps.latest()[1] == {"step": 5}


@pytest.mark.parametrize("kind", KINDS)
def test_the_previous_good_one_is_used_with_a_warning(steps, kind):
    for step in (1, 2, 3):
        save(steps, step, best=1)
    damage(steps.path(3), kind)
    tree, metadata = steps.latest()
    assert metadata == {"step": 2} and tree["w"][0] == 2
    assert len(steps.warnings) == 1 and "step-00000003" in steps.warnings[0]


def test_no_good_checkpoint_stops(steps):
    for step in (1, 2):
        save(steps, step, best=1)
        damage(steps.path(step), "flip")
    with pytest.raises(DamagedCheckpoint, match="no intact checkpoint"):
        steps.latest()
    assert len(steps.warnings) == 2


def test_foreign_names_are_no_checkpoints(steps):
    save(steps, 1, best=1)
    shutil.copytree(steps.path(1), steps.folder / "step-copy")
    (steps.folder / ".emnist_jax-x").mkdir()
    assert steps.steps() == [1]
