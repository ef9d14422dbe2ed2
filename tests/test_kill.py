"""A real process is killed in every phase; the same command ends with the same bits."""

import collections
import dataclasses
import random

import pytest

from experiments import kill_study

# Twelve stops; what a run does in the later phases it does anew after each of them.
STOPS = [
    *("start-up", "start-up", "first step", "saving", "epochs", "saving", "epochs"),
    *("export", "evaluation", "export", "figures", "evaluation"),
]


@pytest.fixture
def config(finished, tmp_path):
    """The finished run's config in another folder, saving after every step."""
    config, _ = finished
    return dataclasses.replace(config, workdir=str(tmp_path), checkpoint_minutes=0.0)


def test_killed_again_and_again(config, run_path, tmp_path):
    delays, counts = random.Random(0), collections.Counter()
    for phase in STOPS:
        stop = kill_study.run_and_stop(config, phase, delays.uniform(0, 0.2))
        assert stop.status == -9, stop
        counts[stop.phase] += 1
    assert counts.total() == len(STOPS) and len(counts) >= 5, counts
    last = kill_study.run_and_stop(config)
    assert last.status == 0, last.stderr
    folder = tmp_path / run_path.name
    assert kill_study.contents(folder) == kill_study.contents(run_path)
    assert kill_study.leftovers(folder) == []
