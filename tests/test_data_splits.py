import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emnist_jax import data
from emnist_jax.cli.errors import UserError
from emnist_jax.data import own


def make_split(kinds, seed=0):
    """A split where images of the same kind are equal, and all others differ."""
    kinds = np.asarray(kinds)
    pictures = np.random.default_rng(seed).integers(
        0, 256, [int(kinds.max(initial=0)) + 1, 28, 28, 1], np.uint8
    )
    rows = np.arange(len(kinds))
    return data.Split(pictures[kinds], kinds.astype(np.int32), rows)


def kinds_of(split):
    return split.labels.tolist()


def test_split_refuses_arrays_of_other_shape_or_type():
    split = make_split([0, 1])
    with pytest.raises(ValueError, match="images is"):
        data.Split(split.images[..., 0], split.labels, split.indices)
    with pytest.raises(ValueError, match="labels is int64"):
        data.Split(split.images, split.labels.astype(np.int64), split.indices)
    with pytest.raises(ValueError, match="indices is"):
        data.Split(split.images, split.labels, split.indices[:1])


def test_select_keeps_what_belongs_together():
    split = make_split([5, 3, 4]).select(np.array([2, 0]))
    assert kinds_of(split) == [4, 5]
    assert split.indices.tolist() == [2, 0]
    np.testing.assert_array_equal(split.images, make_split([5, 3, 4]).images[[2, 0]])


groups = st.lists(st.integers(0, 12), min_size=1, max_size=60)


@settings(derandomize=True, deadline=None)
@given(groups, st.data(), st.integers(-3, 1000))
def test_take_keeps_equal_images_together(kinds, draw, seed):
    split = make_split(kinds)
    count = draw.draw(st.integers(1, len(kinds)))
    taken = data.take(split, count, seed)
    assert len(taken) == count
    assert (np.diff(taken.indices) > 0).all()
    np.testing.assert_array_equal(taken.images, split.images[taken.indices])
    cut = [
        kind
        for kind in set(kinds_of(taken))
        if kinds_of(taken).count(kind) < kinds.count(kind)
    ]
    assert len(cut) <= 1
    more = data.take(split, min(count + 3, len(kinds)), seed)
    assert set(taken.indices) <= set(more.indices)


@settings(derandomize=True, deadline=None)
@given(groups, st.floats(0.01, 0.99), st.integers(0, 1000))
def test_hold_out_divides_without_sharing_an_image(kinds, fraction, seed):
    split = make_split(kinds)
    if len(set(kinds)) == 1:
        with pytest.raises(UserError, match=f"{len(kinds)} images of which 1 are"):
            data.hold_out(split, fraction, seed)
        return
    rest, held = data.hold_out(split, fraction, seed)
    assert len(rest) and len(held)
    assert not set(kinds_of(rest)) & set(kinds_of(held))
    assert sorted([*rest.indices, *held.indices]) == list(range(len(kinds)))
    for part in (rest, held):
        assert (np.diff(part.indices) > 0).all()
        np.testing.assert_array_equal(part.images, split.images[part.indices])
    largest = max(map(kinds.count, kinds))
    assert abs(len(held) - fraction * len(kinds)) <= max(largest, 1)


def test_choice_depends_on_the_seed_and_the_images_alone():
    split = make_split(np.arange(300))
    shuffled = split.select(np.random.default_rng(1).permutation(300))
    one, two = data.take(split, 60, 7), data.take(shuffled, 60, 7)
    assert set(kinds_of(one)) == set(kinds_of(two))
    other = data.take(split, 60, 8)
    assert len(set(kinds_of(one)) & set(kinds_of(other))) < 30
    held = data.hold_out(split, 0.2, 7)[1]
    assert len(held) == 60
    assert len(set(kinds_of(one)) & set(kinds_of(held))) < 30


def test_choice_stays_the_same_in_later_versions():
    kinds = np.arange(1000) % 400
    images = np.zeros([1000, 28, 28, 1], np.uint8)
    images[:, 0, 0, 0], images[:, 0, 1, 0] = kinds % 256, kinds // 256
    split = data.Split(images, kinds.astype(np.int32), np.arange(1000))
    assert data.take(split, 5, 0).indices.tolist() == [150, 176, 550, 576, 950]
    assert data.hold_out(split, 0.005, 0)[1].indices.tolist() == [252, 382, 652, 782]


def test_source_rows_survive_two_steps():
    split = make_split(np.arange(50))
    rest, _ = data.hold_out(data.take(split, 30, 0), 0.5, 0)
    np.testing.assert_array_equal(rest.images, split.images[rest.indices])


@pytest.mark.parametrize("count", [-1, 0, 11])
def test_impossible_count_names_both_numbers(count):
    split = make_split(np.arange(10))
    with pytest.raises(UserError, match=rf"^--train_examples={count} .* 10 images"):
        data.take(split, count, 0, flag="--train_examples")


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 2, math.nan, math.inf])
def test_impossible_fraction_is_refused(fraction):
    split = make_split(np.arange(10))
    with pytest.raises(UserError, match="^--share=.* is out of range"):
        data.hold_out(split, fraction, 0, setting=f"--share={fraction}")


def test_one_own_image_is_named_once(tmp_path):
    np.save(tmp_path / "one.npy", np.zeros((1, 28, 28), np.uint8))
    with pytest.raises(UserError, match="cannot be held out of 1 images") as error:
        own.load(tmp_path / "one.npy")
    assert str(error.value).count("=") == 1
    assert str(error.value).startswith(f"--images={tmp_path}/one.npy: a test part ")


def test_all_images_can_be_taken():
    split = make_split([1, 1, 2])
    assert data.take(split, 3, 0).indices.tolist() == [0, 1, 2]
