"""Pictures of latents: what is varied, and what lies where on the map."""

import numpy as np
import pytest

from emnist_jax import load_run
from emnist_jax.cli.errors import UserError
from experiments import latent_figures


def test_one_latent_at_a_time_changes_an_image(run_path, images):
    run = load_run(run_path)
    latents = run.encode(images)
    varied = latent_figures.traversal(run, latents, row=5)
    assert varied.shape == (32, 5, 28, 28) and varied.dtype == np.uint8
    as_it_was = latent_figures.to_bytes(run.decode(latents[5:6]))
    assert (np.abs(varied[:, 2].astype(int) - as_it_was) <= 1).all()
    moved = latents[5:6].copy()
    moved[0, 7] = np.percentile(latents[:, 7], 99)
    expected = latent_figures.to_bytes(run.decode(moved))[0]
    assert np.abs(varied[7, 4].astype(int) - expected).max() <= 1
    order = latent_figures.strongest_first(varied)
    change = np.abs(varied.astype(float) - varied[:, 2:3]).sum(axis=(1, 2, 3))
    assert sorted(order) == list(range(32))
    assert change[order[0]] > change[order[-1]]


def test_a_map_holds_the_point_nearest_to_the_middle_of_each_cell():
    generator = np.random.default_rng(0)
    plane = generator.uniform(-1, 1, (4000, 2)) * [[30, 10]]
    latents = np.zeros((4000, 5), np.float32)
    latents[:, [3, 1]] = plane
    cells = latent_figures.on_a_map(latents, side=4)
    assert (cells >= 0).all() and len(np.unique(cells)) == 16
    found = plane[cells]  # [4, 4, 2]: the signs of the directions are free
    step = found[0, 1] - found[0, 0]
    assert abs(abs(step[0]) - 15) < 1 and abs(step[1]) < 1
    step = found[1, 0] - found[0, 0]
    assert abs(step[0]) < 1 and abs(abs(step[1]) - 5) < 0.5
    # Where there is nothing, there is no point; equal points are one cell's.
    few = latent_figures.on_a_map(latents[:3], side=20)
    assert 0 < (few >= 0).sum() <= 3
    assert (latent_figures.on_a_map(np.zeros((5, 2), np.float32), 3) >= 0).sum() == 1


def test_the_command(run_path, tmp_path, capsys):
    out = tmp_path / "figures"
    call = [f"--runs={run_path}", "--dataset=glyphs", "--images=40", f"--out={out}"]
    latent_figures.main(call)
    names = ("traversal", "map", "reconstructions")
    assert capsys.readouterr().out.split() == [str(out / f"{n}.png") for n in names]
    assert all((out / f"{n}.png").read_bytes()[:4] == b"\x89PNG" for n in names)


@pytest.mark.parametrize(
    ("runs", "images", "message"),
    [
        ("{0},{0}/", 40, "two have the same name"),
        ("{0}", 5, "5 test images are too few: at least 10"),
    ],
)
def test_calls_that_cannot_be_drawn(run_path, tmp_path, runs, images, message):
    call = [f"--runs={runs.format(run_path)}", "--dataset=glyphs"]
    with pytest.raises(UserError, match=message):
        latent_figures.main([*call, f"--images={images}", f"--out={tmp_path}"])
    assert not list(tmp_path.glob("*.png"))
