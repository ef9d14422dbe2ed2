import dataclasses
import json

import numpy as np
import pytest

from emnist_jax.cli.errors import UserError
from emnist_jax.config import make_config
from emnist_jax.config.compose import select
from emnist_jax.runs import load_run
from experiments import probes


@pytest.fixture(scope="module")
def clusters():
    """Three classes of points: train, their labels, test, their labels."""
    generator = np.random.default_rng(0)
    centres = generator.normal(0, 4, (3, 5))
    labels = np.arange(240) % 3
    points = (centres[labels] + generator.normal(size=(240, 5))).astype(np.float32)
    return points[:180], labels[:180], points[180:], labels[180:]


def linear(*rows):
    return probes.linear_probe(*rows)[0]


@pytest.mark.parametrize("method", [linear, probes.nearest_neighbours])
def test_clusters_are_told_apart_and_noise_is_not(method, clusters):
    train, train_labels, test, test_labels = clusters
    found = method(train, train_labels, test, 3)
    assert (found == test_labels).mean() > 0.95
    shuffled = np.random.default_rng(1).permutation(train_labels)
    found = method(train, shuffled, test, 3)
    assert (found == test_labels).mean() < 0.7


def test_the_linear_probe_is_at_its_optimum(clusters):
    train, labels, *_ = clusters
    # At the optimum of an unpenalised intercept the mean probabilities are the class
    # frequencies; the penalty is small enough to keep that, so are the predictions.
    found, iterations = probes.linear_probe(train, labels, train, 3)
    assert 1 < iterations < probes.MOST_ITERATIONS
    counts = np.bincount(found, minlength=3)
    assert np.abs(counts - 60).max() <= 2


def test_neighbours_by_brute_force(clusters):
    train, labels, test, _ = clusters
    found = probes.nearest_neighbours(train, labels, test, 3)
    for point, label in zip(test, found, strict=True):
        order = np.argsort(((train - point[None]) ** 2).sum(axis=1))[:5]
        votes = np.bincount(labels[order], minlength=3)
        assert votes[label] == votes.max()


def test_ties_go_to_the_nearest_voter():
    train = np.arange(1, 8, dtype=np.float32)[:, None]
    labels = np.array([0, 1, 1, 0, 2, 2, 2])
    test = np.zeros((1, 1), np.float32)
    assert probes.nearest_neighbours(train, labels, test, 3) == [0]
    labels = np.array([1, 0, 0, 1, 2, 2, 2])
    assert probes.nearest_neighbours(train, labels, test, 3) == [1]


def test_the_command(tmp_path, run_path, capsys):
    call = [f"--workdir={tmp_path}", f"--runs={run_path}"]
    probes.main(call)
    rows = json.loads((tmp_path / "probes.json").read_text())["rows"]
    assert {r["features"] for r in rows} == {run_path.name, "pca32", "pixels"}
    images = select(make_config(**load_run(run_path).config)).whole_train.images
    distinct = len(np.unique(images.reshape(len(images), -1), axis=0))
    assert all(row["train"] == distinct and row["test"] == 30 for row in rows)
    assert (tmp_path / "map.png").stat().st_size > 10_000
    assert "pixels\n" in capsys.readouterr().out
    probes.main(call)
    assert "pixels\n" not in capsys.readouterr().out
    with pytest.raises(UserError, match="two folders have the same name"):
        probes.main([*call, f"--runs={run_path},{run_path}"])


def test_rows_of_the_data_and_of_the_latents_must_agree(tmp_path, run_path):
    run = load_run(run_path)
    data = select(make_config(**run.config))
    swapped = dataclasses.replace(data, test=data.test.select(np.arange(30)[::-1]))
    with pytest.raises(UserError, match="test (labels|indices) are not the data's"):
        probes.measure_missing(tmp_path, [run], swapped, None)
    with pytest.raises(UserError, match="are too few to probe"):
        probes.measure_missing(tmp_path, [run], data, 3)
