"""The entropy coder: exact, near the entropy, and strict about its streams."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emnist_jax.codec import rans

SETTINGS = settings(derandomize=True, deadline=None, max_examples=60)


def random_symbols(seed, steps, blocks, lanes):
    """Cumulative tables [steps, blocks, lanes, 9] and symbols, some sitting out."""
    rng = np.random.default_rng(seed)
    cuts = np.sort(rng.integers(1, rans.TOTAL, (steps, blocks, lanes, 7)), axis=-1)
    cuts[rng.random(cuts.shape[:3]) < 0.3] = rans.TOTAL  # one symbol only
    ends = [np.zeros_like(cuts[..., :1]), cuts, np.full_like(cuts[..., :1], rans.TOTAL)]
    table = np.concatenate(ends, axis=-1)
    point = rng.integers(0, rans.TOTAL, table.shape[:3])[..., None]
    symbols = (table[..., 1:] <= point).sum(axis=-1)
    return table, symbols


def intervals(table, symbols):
    low = np.take_along_axis(table, symbols[..., None], -1)[..., 0]
    high = np.take_along_axis(table, symbols[..., None] + 1, -1)[..., 0]
    return low, high - low


def decode(streams, table):
    decoder = rans.Decoder(streams, table.shape[2])
    found = []
    for step in table:
        symbols = (step[..., 1:] <= decoder.slots()[..., None]).sum(axis=-1)
        low, length = intervals(step, symbols)
        decoder.advance(low.astype(np.uint32), length.astype(np.uint32))
        found.append(symbols)
    decoder.finish()
    return np.array(found)


@SETTINGS
@given(st.integers(0, 2**32), st.integers(1, 40), st.integers(1, 4), st.integers(1, 9))
def test_symbols_come_back(seed, steps, blocks, lanes):
    table, symbols = random_symbols(seed, steps, blocks, lanes)
    low, length = intervals(table, symbols)
    streams = rans.encode(low.astype(np.uint16), (length - 1).astype(np.uint16))
    np.testing.assert_array_equal(decode(streams, table), symbols)


def test_size_is_the_entropy_and_a_state_a_lane():
    table, symbols = random_symbols(0, 2000, 1, 8)
    low, length = intervals(table, symbols)
    (stream,) = rans.encode(low.astype(np.uint16), (length - 1).astype(np.uint16))
    entropy = (16 - np.log2(length)).sum() / 8
    assert entropy < len(stream) < entropy + 5 * 8


def test_blocks_do_not_depend_on_their_company():
    table, symbols = random_symbols(3, 50, 3, 4)
    low, length = (part.astype(np.uint16) for part in intervals(table, symbols))
    together = rans.encode(low, length - np.uint16(1))
    alone = rans.encode(low[:, 1:2], length[:, 1:2] - np.uint16(1))
    assert together[1] == alone[0]


def test_a_known_stream():
    # The vectors of docs/codec_format.md.
    start = np.array([[[0, 40000]], [[0, 10]], [[65535, 0]]], np.uint16)
    length = np.array([[[32768, 25536]], [[65536, 1]], [[1, 65536]]]) - 1
    (stream,) = rans.encode(start, length.astype(np.uint16))
    assert stream.hex() == "ff7f0300cad4020000000000"


@pytest.mark.parametrize("damage", ["cut", "longer", "state", "last word"])
def test_damaged_streams_are_noticed(damage):
    table, symbols = random_symbols(1, 60, 1, 4)
    low, length = intervals(table, symbols)
    (stream,) = rans.encode(low.astype(np.uint16), (length - 1).astype(np.uint16))
    streams = {
        "cut": stream[:-2],
        "longer": stream + b"\0\0",
        "state": b"\0\0\0\0" + stream[4:],
        "last word": stream[:-2] + bytes([stream[-2] ^ 1, stream[-1]]),
    }
    with pytest.raises(rans.CorruptStream):
        decode([streams[damage]], table)
