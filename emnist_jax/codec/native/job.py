"""What a program is given: one table of addresses and lengths of arrays."""

import numpy as np

from emnist_jax.codec.native.language import POINTER, Array
from emnist_jax.codec.native.program import Program

# Kinds of the arrays of a job, in the order of the table.
KINDS = {
    # The model (`weights.pack`) and the format's tables.
    "layers": "i8",  # [layers, 4]: groups, outputs, first weight, first bias
    "tables": "i8",  # [6, 3]: first bias, biases in a row, rows
    "weights": "i4",
    "biases": "i4",
    "shifts": "i4",
    "exponential": "i4",
    "order": "i4",
    "costs": "i4",  # of a symbol by its frequency, for an encoder that weighs bits
    "bin_of_value": "u1",
    "place_in_bin": "u1",
    "bin_starts": "i8",
    "bin_widths": "i4",
    # Images in flight and their blocks.
    "sizes": "i8",  # see `SIZES`
    "pixels": "u1",  # [images, height + 7, width + 14], filled on the way
    "source": "u1",  # [images, height, width], for the encoder
    "lane": "i8",  # of each image, counted over all blocks
    "block": "i8",  # of each image
    "state": "u4",  # of each lane
    "at": "i8",  # of each block: the next word, or the next symbol of the encoder
    "begin": "i8",  # of each block: where the room for its symbols begins
    "end": "i8",  # of each block: where its words, or the room for its symbols, end
    "words": "u2",  # of all blocks
    "symbols": "u4",  # start + 65536 * (frequency - 1)
    "lanes": "i8",  # of the symbols
    # Room to work in.
    "hard": "u1",  # [images]
    "chosen": "i8",  # [images], whose turn it is
    "rows": "u1",
    "inputs": "i4",
    "bias": "i4",
    "trunk": "i4",  # [blocks of the network + 1, width], activations of a tile
    "hidden": "i4",  # [tiles, width], the last of each
    "detail": "i4",
    "sums": "i4",
    "logits": "i4",
    "bins": "i4",  # [images + LANES], or phases
    "places": "i4",  # [LANES], where biases of each pixel's bin begin
    "exist": "i4",  # [LANES]
    "ends": "i4",  # [symbols + 1, LANES]
    "fine_ends": "i4",
    "mass": "i4",  # [257, LANES]
}
SIZES = (
    "images",
    "height",
    "width",
    "blocks",
    "error",
    "phases",
    "spans",
    "weight",
    "means",
)


def read(program: Program, table: Array) -> dict[str, Array]:
    """The arrays of the job at `table`."""
    arrays = {}
    for index, (name, kind) in enumerate(KINDS.items()):
        pointer = program.builder.inttoptr(table[2 * index].ir, POINTER)
        arrays[name] = Array(program, kind, pointer, table[2 * index + 1])
    return arrays


def table(arrays: dict[str, np.ndarray]) -> np.ndarray:
    """Addresses and lengths, int64; `arrays` must stay alive and where they are.

    Those that are missing are empty.
    """
    assert arrays.keys() <= KINDS.keys()
    numbers = []
    for name, kind in KINDS.items():
        array = arrays.get(name)
        if array is None:
            numbers += [0, 0]
            continue
        assert array.dtype == kind and array.flags.c_contiguous, name
        numbers += [array.ctypes.data, array.size]
    return np.array(numbers, np.int64)
