"""What users run on accelerators, as programs to be compiled."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from emnist_jax import cpu
from emnist_jax.codec import context, device_loop, fit, integer_network, model_file
from emnist_jax.codec.values import BINS
from emnist_jax.config import compose, make_config
from emnist_jax.devices import mapping
from emnist_jax.evaluate import evaluation_step
from emnist_jax.models.decoders import make_decoder
from emnist_jax.models.encoder import Encoder
from emnist_jax.models.registry import DECODERS
from emnist_jax.training.step import create_state, make_epoch_step, make_train_step

IMAGES = 1024  # a device and call, as `parallel.rows_per_call` has it
EXAMPLES = 107_160  # images of EMNIST-Balanced that are trained on
PIXELS = 65_536  # of a call of the codec's networks
BLOCKS = 512  # of 16 images, of a call of the codec
WORDS = 4096  # of 16 bits that a block may take
MAX_ERROR = 4  # of the near-lossless program
# Adam: the small products of Muon in `best`, 1.5% of the FLOP, take compilers minutes.
PRESET = "robust"

shape = jax.ShapeDtypeStruct


@dataclasses.dataclass(frozen=True)
class Program:
    """A function and what it is called with, for so many devices.

    Attributes:
      function, in_axes, out_axes: as `mapping.mapped` takes them.
      arguments: shapes and types, those of mapped ones with the axis of the devices.
      count: images or pixels of a call, all devices together.
      dtype: that it computes in.
      donate: positions of arguments whose memory is reused.
      steps: how often its loop runs; XLA counts the work of a loop's body once.
    """

    function: Callable
    in_axes: tuple[int | None, ...]
    out_axes: Any
    arguments: tuple[Any, ...]
    count: int
    dtype: str = "float32"
    donate: tuple[int, ...] = ()
    steps: int = 1

    def lower(self, devices: Sequence[jax.Device] | None = None) -> jax.stages.Lowered:
        """The program for these devices; None is the CPU's."""
        axes = self.in_axes, self.out_axes, self.donate, devices
        mapped = mapping.mapped(self.function, *axes)
        return mapped.__wrapped__.lower(*self.arguments)


def flops(name: str, devices: int = 1) -> float:
    """Floating-point operations of a device's share of a call, as XLA counts them.

    Those of the program before it is compiled, for which no device is needed.
    """
    alone = PROGRAMS[name](1)
    with cpu.plain_layers():  # work in kernels is not seen
        found = alone.lower(jax.devices("cpu")[:1]).cost_analysis()
    return found["flops"] * PROGRAMS[name](devices).steps


def _train(dtype: str, epoch: bool, devices: int) -> Program:
    batch = IMAGES * devices
    settings = {"batch_size": batch, "compute_dtype": dtype}
    config = make_config(preset=PRESET, decoder="model03", **settings)
    model, optimizer = compose.autoencoder(config), compose.optimizer(config, 10_000)
    state = jax.eval_shape(lambda: compose.first_state(config, model, optimizer))
    step = make_train_step(compose.loss_of(config, model), optimizer)
    if not epoch:
        images = shape((devices, IMAGES, 28, 28, 1), np.uint8)
        arguments, axes = (state, images), (None, 0)
        return Program(step, axes, None, arguments, batch, dtype, (0,))
    steps = EXAMPLES // batch
    resident = shape((EXAMPLES, 28, 28, 1), np.uint8)
    arguments = (state, resident, shape((devices, steps, IMAGES), np.int32))
    axes, count = (None, None, 0), batch * steps
    epoch_step = make_epoch_step(step)
    return Program(epoch_step, axes, None, arguments, count, dtype, (0,), steps)


def _rows(devices: int) -> dict[str, Any]:
    """Images and latents, as many as a call takes."""
    images = shape((devices, IMAGES, 28, 28, 1), np.uint8)
    return {"images": images, "latents": shape((devices, IMAGES, 32), np.float32)}


def _params(model: Any) -> Any:
    one = jnp.zeros((1, 28, 28, 1))
    return jax.eval_shape(model.init, jax.random.key(0), one)["params"]


def _half(decoder: str, method: str, rows: str, devices: int) -> Program:
    model = compose.autoencoder(make_config(decoder=decoder))

    def run(params, rows):
        return model.apply({"params": params}, rows, method=method)

    arguments = _params(model), _rows(devices)[rows]
    return Program(run, (None, 0), 0, arguments, IMAGES * devices)


def _evaluate(devices: int) -> Program:
    params = _params(compose.autoencoder(make_config(decoder="model03")))
    step = evaluation_step(Encoder(), make_decoder("model03"))
    return Program(step, (None, 0), 0, (params, _rows(devices)), IMAGES * devices)


def _codec(part: str, devices: int) -> Program:
    model, _, _ = model_file.load("default")
    config = model.config
    operands = jax.eval_shape(lambda: integer_network.operands_of(model.arrays, config))

    def rows(*columns: int, dtype: Any = np.int32) -> jax.ShapeDtypeStruct:
        return shape((devices, PIXELS, *columns), dtype)

    place = shape((devices,), np.int32)  # of all pixels of a call
    pixels = rows(context.NEIGHBOURS, dtype=np.uint8), place, place
    hidden = rows(config.width, dtype=np.float32)
    arguments, static = {
        "gate": (pixels, ()),
        "coarse": (pixels, (config.blocks,)),
        "fine": ((hidden, rows()), ()),
        "values": ((hidden, rows(BINS)), (MAX_ERROR,)),
    }[part]

    def run(operands, *rows):
        return getattr(integer_network, part)(operands, *static, *rows)

    axes = (None, *(0 for _ in arguments))
    return Program(run, axes, 0, (operands, *arguments), PIXELS * devices)


def _codec_row(decodes: bool, devices: int) -> Program:
    """A row of pixels of all images: 28 of them are a file."""
    model, _, _ = model_file.load("default")
    task = device_loop.Task((BLOCKS, 16, 1), model.config.blocks, 0, False, False)
    operands = jax.eval_shape(
        lambda: integer_network.operands_of(model.arrays, model.config)
    )

    def each(*sides: int, dtype: Any = np.int32) -> jax.ShapeDtypeStruct:
        return shape((devices, *sides), dtype)

    images = BLOCKS * 16
    exists, row = each(images, dtype=np.bool_), each()
    padded = each(images, 28 + context.ROWS, 28 + 2 * context.COLUMNS, dtype=np.uint8)
    if decodes:
        words, state = each(BLOCKS, WORDS, dtype=np.uint16), each(BLOCKS, 1, dtype="u4")
        arguments = words, exists, row, (padded, state, each(BLOCKS))
        function = device_loop.decode_row
    else:
        weight = device_loop.Weight(each(dtype=np.uint32), each(dtype=np.uint32))
        values = each(images, 28, dtype=np.uint8)
        arguments = weight, exists, row, padded, values
        function = device_loop.choose_row
    axes = (None, *(0 for _ in arguments))
    function = functools.partial(function, task)
    count = 28 * images * devices  # pixels
    return Program(function, axes, 0, (operands, *arguments), count, steps=28)


def _codec_training(devices: int) -> Program:
    config = fit.PixelTraining()
    optimizer = fit.optimizer_of(config, 10_000)
    params = jax.eval_shape(lambda: fit.init_params(config))
    state = jax.eval_shape(lambda p: create_state(p, optimizer, average=True), params)
    step = make_train_step(fit.loss_of(config, True), optimizer, config.average)

    def pixels(count: int) -> dict[str, jax.ShapeDtypeStruct]:
        numbers = {"pixel": np.int32, "value": np.uint8, "ink": np.bool_}
        contexts = shape((devices, count, context.NEIGHBOURS), np.uint8)
        found = {name: shape((devices, count), kind) for name, kind in numbers.items()}
        return found | {"context": contexts}

    hard = config.batch_size
    batch = {"hard": pixels(hard), "easy": pixels(hard // fit.EASY_SHARE)}
    count = hard * devices
    return Program(step, (None, 0), None, (state, batch), count, donate=(0,))


PROGRAMS: dict[str, Callable[[int], Program]] = {
    "train float32": functools.partial(_train, "float32", False),
    "train bfloat16": functools.partial(_train, "bfloat16", False),
    "epoch float32": functools.partial(_train, "float32", True),
    "encode": functools.partial(_half, "model03", "encode", "images"),
    **{
        f"decode {decoder}": functools.partial(_half, decoder, "decode", "latents")
        for decoder in DECODERS
    },
    "evaluate": _evaluate,
    **{
        f"codec {part}": functools.partial(_codec, part)
        for part in ("gate", "coarse", "fine", "values")
    },
    "codec decode": functools.partial(_codec_row, True),
    "codec encode": functools.partial(_codec_row, False),
    "codec training": _codec_training,
}
