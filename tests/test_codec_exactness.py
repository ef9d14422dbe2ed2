"""The integer form: equal to plain int64 arithmetic, everywhere, at every size."""

import numpy as np
import pytest
from codec_models import Network, drawn_pixels, places
from codec_models import tiny_model as make_tiny_model

from emnist_jax.cli.errors import UserError
from emnist_jax.codec import context, model_file, values
from emnist_jax.codec.integer_form import EXPONENTIAL, ORDER
from emnist_jax.codec.integer_model import IntegerModel
from emnist_jax.codec.values import BIN_OF_VALUE, BIN_STARTS, BINS, PLACES

TOTAL = 65536


def reference_frequencies(logits, exists):
    """Frequencies of a row of integer logits, as docs/codec_format.md has them."""
    table = [int(np.floor(16384 * np.exp(-d / 64) + 0.5)) for d in range(704)]
    top = max(x for x, there in zip(logits, exists, strict=True) if there)
    weight = [
        table[min(int(top - x), 703)] if there else 0
        for x, there in zip(logits, exists, strict=True)
    ]
    spread = TOTAL - sum(exists)
    share = [
        w * spread // sum(weight) + there
        for w, there in zip(weight, exists, strict=True)
    ]
    best = [x if there else -(2**40) for x, there in zip(logits, exists, strict=True)]
    share[best.index(max(best))] += TOTAL - sum(share)
    return share


class Reference:
    """The arithmetic of docs/codec_format.md in plain int64."""

    def __init__(self, model):
        self.arrays = {k: v.astype(np.int64) for k, v in model.arrays.items()}
        self.blocks = model.config.blocks

    def dense(self, inputs, name, *extra):
        shift = self.arrays[f"{name}.shift"]
        bias = self.arrays[f"{name}.bias"] + sum(extra)
        total = inputs @ self.arrays[f"{name}.weight"] + (bias << (shift - 4))
        return (total + (1 << (shift - 1))) >> shift

    def trunk(self, prefix, blocks, contexts, row, column):
        pixels = contexts.astype(np.int64)
        focus = pixels[:, list(context.FOCUS)]
        low, high = np.minimum(16 * focus, 255), 16 * np.maximum(focus - 240, 0)
        inputs = np.concatenate([pixels, low, high], axis=1)
        where = (
            self.arrays[f"{prefix}row"][row],
            self.arrays[f"{prefix}column"][column],
        )
        hidden = np.clip(self.dense(inputs, f"{prefix}first", *where), 0, 255)
        for block in range(blocks):
            step = self.dense(hidden, f"{prefix}block{block}")
            hidden = np.clip(hidden + step, 0, 255)
        return hidden

    def gate(self, contexts, row, column):
        hidden = self.trunk("gate_", 1, contexts, row, column)
        logits = self.dense(hidden, "gate_head")
        return [reference_frequencies(line, [1, 1])[0] for line in logits]

    def main(self, contexts, row, column, bins):
        hidden = self.trunk("", self.blocks, contexts, row, column)
        coarse = self.dense(hidden, "coarse")
        extra = self.arrays["fine_bin"][bins]
        detail = np.clip(self.dense(hidden, "fine_hidden", extra), 0, 255)
        fine = self.dense(detail, "fine", self.arrays["fine_place"][bins])
        exists = PLACES[bins].astype(int)
        return (
            [reference_frequencies(line, [1] * BINS) for line in coarse],
            [
                reference_frequencies(line, list(there))
                for line, there in zip(fine, exists, strict=True)
            ],
        )


@pytest.fixture(scope="module")
def tiny_model():
    return Network(make_tiny_model())


@pytest.fixture(scope="module", params=["tiny", "default", "fast"])
def model(request, tiny_model):
    if request.param == "tiny":
        return tiny_model
    return Network(model_file.load(request.param)[0])


@pytest.fixture(scope="module")
def pixels(images):
    return drawn_pixels(images)


def test_frequencies_equal_int64(model, pixels):
    reference = Reference(model)
    easy, hard = pixels["easy"], pixels["hard"]
    np.testing.assert_array_equal(
        model.gate(easy["context"], *places(easy)),
        reference.gate(easy["context"], *places(easy)),
    )
    bins = BIN_OF_VALUE[hard["value"]]
    hidden, coarse = model.coarse(hard["context"], *places(hard))
    fine = model.fine(hidden, bins)
    expected = reference.main(hard["context"], *places(hard), bins)
    np.testing.assert_array_equal(np.diff(coarse, axis=1, prepend=0), expected[0])
    np.testing.assert_array_equal(np.diff(fine, axis=1, prepend=0), expected[1])


def test_extreme_contexts_equal_int64(tiny_model):
    rng = np.random.default_rng(0)
    contexts = np.concatenate(
        [
            np.zeros((1, 112), np.uint8),
            np.full((1, 112), 255, np.uint8),
            rng.choice(np.array([0, 255], np.uint8), (20, 112)),
            rng.integers(0, 256, (20, 112), np.uint8),
        ]
    )
    row = column = np.arange(len(contexts)) % 28
    bins = np.arange(len(contexts)) % BINS
    hidden, coarse = tiny_model.coarse(contexts, row, column)
    expected = Reference(tiny_model).main(contexts, row, column, bins)
    np.testing.assert_array_equal(np.diff(coarse, axis=1, prepend=0), expected[0])
    fine = np.diff(tiny_model.fine(hidden, bins), axis=1, prepend=0)
    np.testing.assert_array_equal(fine, expected[1])


def test_a_row_alone_and_in_company(model, pixels):
    hard = pixels["hard"]
    row, column = places(hard)
    _, together = model.coarse(hard["context"], row, column)
    for size in (1, 7):
        _, few = model.coarse(hard["context"][:size], row[:size], column[:size])
        np.testing.assert_array_equal(few, together[:size])
    many = [np.resize(part, (4096, *part.shape[1:])) for part in (hard["context"], row)]
    _, table = model.coarse(*many, np.resize(column, 4096))
    np.testing.assert_array_equal(table, np.resize(together, table.shape))


def test_near_lossless_tables_cover_all_steps(tiny_model, pixels):
    hard = pixels["hard"]
    hidden, coarse = tiny_model.coarse(hard["context"], *places(hard))
    for max_error, count in ((1, 86), (4, 29), (127, 2)):
        table, phase, _ = tiny_model.values(hidden, coarse, max_error)
        cut = values.spans(max_error)
        frequency = np.diff(table, axis=1, prepend=0)
        assert frequency.shape == (len(hard["value"]), cut.exists.shape[1])
        assert cut.exists.sum(axis=1).min() == count
        np.testing.assert_array_equal(frequency > 0, cut.exists[phase])
        assert (table[:, -1] == TOTAL).all()


def joint_reference(model, pixels):
    """What docs/codec_format.md says of the values' shares, in plain int64."""
    hidden, coarse = model.coarse(pixels["context"], *places(pixels))
    coarse = np.diff(coarse, axis=1, prepend=0).astype(np.int64)
    joint = np.zeros((len(coarse), 256), np.int64)
    for index, start in enumerate(BIN_STARTS):
        fine = model.fine(hidden, np.full(len(coarse), index))
        fine = np.diff(fine, axis=1, prepend=0).astype(np.int64)
        for place in range(PLACES[index].sum()):
            joint[:, start + place] = (coarse[:, index] // 2) * (fine[:, place] // 2)
    return hidden, model.coarse(pixels["context"], *places(pixels))[1], joint >> 14


def steps_reference(joint, max_error):
    """Frequencies of the steps of one pixel, and the phase, as in the format."""
    width, best = 2 * max_error + 1, None
    for phase in range(1, min(width, 255 - max_error) + 1):
        ends = [max_error + 1, *range(max_error + 1 + phase, 256, width), 256]
        mass = [int(joint[a:b].sum()) for a, b in zip([0, *ends], ends, strict=False)]
        order = sum(
            int(np.floor(16 * k * np.log2(max(k, 1)) + 0.5))
            for k in (m // 16 for m in mass)
        )
        if best is None or order > best[0]:
            best = order, phase, mass
    _, phase, mass = best
    share = [m * (TOTAL - len(mass)) // TOTAL + 1 for m in mass]
    share[share.index(max(share))] += TOTAL - sum(share)
    return share, phase


@pytest.mark.parametrize("max_error", [1, 4, 60, 127])
def test_near_lossless_steps_equal_int64(tiny_model, pixels, max_error):
    hidden, coarse, joint = joint_reference(tiny_model, pixels["hard"])
    table, phase, _ = tiny_model.values(hidden, coarse, max_error)
    found = np.diff(table, axis=1, prepend=0)
    for line, index, row in zip(found, phase, joint, strict=True):
        share, expected = steps_reference(row, max_error)
        assert index + 1 == expected
        np.testing.assert_array_equal(line[: len(share)], share)


@pytest.mark.parametrize("max_error", [1, 4, 84, 127])
def test_steps_hold_every_value_near_what_comes_back(max_error):
    cut = values.spans(max_error)
    back = np.take_along_axis(cut.value, cut.of_value.astype(int), axis=1)
    assert np.abs(back.astype(int) - np.arange(256)).max() <= max_error
    assert not back[:, : max_error + 1].any() and back[:, max_error + 1 :].all()
    assert (np.diff(cut.of_value.astype(int), axis=1) >= 0).all()


def test_sums_beyond_float32_are_refused(tiny_model):
    arrays = dict(tiny_model.arrays)
    arrays["first.bias"] = np.full_like(arrays["first.bias"], 32767)
    arrays["first.shift"] = np.full_like(arrays["first.shift"], 12)
    arrays["first.weight"] = np.full_like(arrays["first.weight"], 127)
    arrays["row"] = np.full_like(arrays["row"], 32767)
    with pytest.raises(UserError, match="2\\*\\*24"):
        IntegerModel(tiny_model.config, arrays)


def test_the_tables_of_the_format():
    # The vectors of docs/codec_format.md.
    assert EXPONENTIAL[[0, 1, 64, 703]].tolist() == [16384, 16130, 6027, 0]
    assert ORDER[[1, 3, 100, 4096]].tolist() == [0, 76, 10630, 786432]
