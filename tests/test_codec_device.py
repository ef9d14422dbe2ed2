"""Pixels coded by loops on a device; test_codec_native.py compares their files."""

import jax.numpy as jnp
import numpy as np
import pytest
from codec_models import tiny_model

from emnist_jax.codec import device_coding, device_loop, rans
from emnist_jax.codec.values import COSTS, spans


@pytest.mark.parametrize("weight", [1, 900, 65_536, 2_000_000, 2**32 - 1])
def test_errors_are_weighed_exactly(weight):
    rng = np.random.default_rng(weight)
    worth = device_loop.Weight(*(jnp.uint32(x) for x in divmod(weight, 1 << 16)))
    cut = spans(20)
    phase = rng.integers(0, len(cut.value), 300)
    decoded, there = cut.value[phase].astype(np.int32), cut.exists[phase]
    frequency = rng.integers(1, 9000, there.shape) * there
    frequency[:, 0] += 65536 - frequency.sum(axis=1).clip(max=65535)
    values = rng.integers(0, 256, 300).astype(np.uint8)
    table = jnp.asarray(frequency.cumsum(axis=1), jnp.int32)
    found = device_loop._best_span(worth, jnp.asarray(decoded), table, values)
    off = values.astype(np.int64)[:, None] - decoded
    cost = COSTS[frequency.clip(max=65536)] + weight * off**2
    expected = np.where(frequency > 0, cost, 1 << 62).argmin(axis=1)
    np.testing.assert_array_equal(found, expected)
    zero = rng.integers(1, 65536, 300)
    task = device_loop.Task((1, 1, 1), 1, 5, True, True)
    ink = device_loop._is_ink(task, worth, jnp.asarray(zero), jnp.asarray(values))
    squares = values.astype(np.int64) ** 2
    expected = weight * squares > COSTS[65536 - zero] - COSTS[zero]
    np.testing.assert_array_equal(ink, expected & (values > 5))


def test_what_a_stream_holds_too_much_is_not_read():
    states = np.full(1, 1 << 16, "<u4").tobytes()
    streams = [states, states + bytes(2 * 10**6)]
    given = streams, [1, 1], (2, 3), 0, lambda share: None, False
    with pytest.raises(rans.CorruptStream):
        device_coding.decode(tiny_model(), *given)


@pytest.mark.long
def test_progress_is_told_once_a_row(images):
    told, blocks = [], [images[:2, 8:12, 8:14, 0], images[2:5, 8:12, 8:14, 0]]
    given = 0, told.append, None
    streams, seen = device_coding.encode(tiny_model(), blocks, *given)
    np.testing.assert_array_equal(seen, np.concatenate(blocks))
    assert told == [0.25] * 4
    found = device_coding.decode(
        tiny_model(), streams, [2, 3], (4, 6), 0, told.append, False
    )
    assert told == [0.25] * 8
    for block, wanted in zip(found, blocks, strict=True):
        np.testing.assert_array_equal(block, wanted)
