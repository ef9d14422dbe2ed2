"""Trains a pixel model: batches of pixels, optimiser, step."""

import dataclasses
from collections.abc import Iterator

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax

from emnist_jax import parallel
from emnist_jax.codec import context
from emnist_jax.codec.pixel_model import (
    BIN_OF_VALUE,
    PLACE_IN_BIN,
    PixelModel,
    PixelModelConfig,
)
from emnist_jax.codec.rounding import steps

ADAM_SHARE = 1.0  # rate of what Adam updates, of the rate of Muon


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How a pixel model is trained.

    Attributes:
      model: its sizes.
      minutes: length of the training in minutes of its own running time; the
        learning rate falls to 0 along a cosine over it.
      steps: its length in steps instead, which makes it repeatable; 0 for none.
      batch_size: hard pixels a step; a quarter as many easy ones come on top.
      learning_rate: the highest rate, after the warm-up.
      warmup: share of the training over which the rate rises.
      quantise_from: share of the training after which the forward pass rounds as
        the integer form will.
      average: decay of the averaged parameters, which are the result.
      max_error: the near-lossless error bound to train for, 0 for lossless.
      seed: of the initial parameters and the order of pixels.
    """

    model: PixelModelConfig = PixelModelConfig()
    minutes: float = 60.0
    steps: int = 0
    batch_size: int = 4096
    learning_rate: float = 0.011
    warmup: float = 0.01
    quantise_from: float = 0.75
    average: float = 0.995
    max_error: int = 0
    seed: int = 0


@flax.struct.dataclass
class TrainState:
    """What a step changes."""

    params: dict
    average: dict
    opt_state: tuple
    step: jax.Array


def optimizer() -> optax.GradientTransformation:
    """Muon for hidden matrices, Adam for the rest; the step scales by the rate."""

    def dimensions(params):
        def kind(path, value):
            hidden = path[-1].key == "kernel" and min(value.shape) > 32
            return optax.contrib.MuonDimensionNumbers() if hidden else None

        return jax.tree_util.tree_map_with_path(kind, params)

    return optax.contrib.muon(
        1.0,
        consistent_rms=0.2,
        adam_learning_rate=ADAM_SHARE,
        muon_weight_dimension_numbers=dimensions,
    )


def init_params(config: TrainConfig) -> dict:
    """Fresh parameters."""
    one = jnp.zeros((1,), jnp.int32)
    return jax.jit(PixelModel(config.model).init)(
        jax.random.key(config.seed), jnp.zeros((1, context.NEIGHBOURS)), one, one, one
    )["params"]


def init_state(params: dict) -> TrainState:
    """The state before the first step from `params`."""
    return TrainState(
        params=params,
        average=jax.tree.map(jnp.copy, params),
        opt_state=optimizer().init(params),
        step=jnp.zeros((), jnp.int32),
    )


def _bits(logits: jax.Array, labels: jax.Array) -> jax.Array:
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return loss / jnp.log(2)


def hard_bits(
    model: PixelModel, params, pixels, quantise: bool, max_error: int = 0
) -> jax.Array:
    """Bits of each pixel [n] coded by the main network."""
    value = pixels["value"].astype(jnp.int32)
    contexts = pixels["context"].astype(jnp.float32)
    place = jnp.divmod(pixels["pixel"].astype(jnp.int32), model.config.columns)
    if max_error:
        logits = model.apply(
            {"params": params}, contexts, *place, quantise, method="values"
        )
        return step_bits(logits, value, max_error)
    bins = jnp.asarray(BIN_OF_VALUE)[value]
    coarse, fine = model.apply(
        {"params": params}, contexts, *place, bins, quantise, method="main"
    )
    return _bits(coarse, bins) + _bits(fine, jnp.asarray(PLACE_IN_BIN)[value])


def step_bits(logits: jax.Array, value: jax.Array, max_error: int) -> jax.Array:
    """Bits of the near-lossless steps that values lie in, as the coder cuts them.

    Args:
      logits: float32 [n, 256], log-probabilities of values.
      value: int [n].
      max_error: 1..127.

    Returns:
      float32 [n].
    """
    cut = steps(max_error)
    members = jnp.asarray(cut.members().reshape(256, -1), jnp.float32)
    mass = jnp.exp(jax.lax.stop_gradient(logits)) @ members
    mass = mass.reshape(-1, *cut.exists.shape)
    phase = (mass * jnp.log(jnp.maximum(mass, 1e-9))).sum(axis=-1).argmax(axis=-1)
    of_value = jnp.asarray(cut.of_value)[phase]  # [n, 256]
    inside = of_value == jnp.take_along_axis(of_value, value[:, None], axis=1)
    chosen = jnp.where(inside, logits, -1e9)
    return -jax.nn.logsumexp(chosen, axis=1) / jnp.log(2)


def easy_bits(model: PixelModel, params, pixels, quantise: bool) -> jax.Array:
    """Bits of each easy pixel [n] spent by the gate."""
    logits = model.apply(
        {"params": params},
        pixels["context"].astype(jnp.float32),
        *jnp.divmod(pixels["pixel"].astype(jnp.int32), model.config.columns),
        quantise,
        method="gate",
    )
    return _bits(logits, pixels["ink"].astype(jnp.int32))


def train_step(config: TrainConfig, quantise: bool):
    """The step of one device inside `parallel.pmapped`.

    Args:
      config: how to train.
      quantise: whether the forward pass rounds as the integer form does.

    Returns:
      A pure function of the state, the learning rate and this device's pixels to
      the next state and metrics, both the same on every device.
    """
    model = PixelModel(config.model)
    transform = optimizer()

    def step(
        state: TrainState, rate: jax.Array, batch: dict
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        def total(params):
            hard = hard_bits(
                model, params, batch["hard"], quantise, config.max_error
            ).mean()
            easy = easy_bits(model, params, batch["easy"], quantise).mean()
            return hard + easy, {"hard_bits": hard, "easy_bits": easy}

        gradients = jax.grad(total, has_aux=True)(state.params)
        gradients, metrics = parallel.mean_over_devices(gradients)
        updates, opt_state = transform.update(gradients, state.opt_state, state.params)
        params = jax.tree.map(lambda p, u: p + rate * u, state.params, updates)
        decay = jnp.minimum(config.average, (1 + state.step) / (10 + state.step))
        average = jax.tree.map(
            lambda a, p: decay * a + (1 - decay) * p, state.average, params
        )
        return TrainState(params, average, opt_state, state.step + 1), metrics

    return step


class PixelSampler:
    """Draws batches of pixels from images, easy ones apart.

    Attributes:
      pixels: number of pixels of all images.
      hard_per_image: mean number of pixels an image codes with the main network.
      easy_per_image: mean number the gate codes.
    """

    def __init__(self, images: np.ndarray, seen: np.ndarray | None = None):
        """Takes uint8 [N, height, width].

        Args:
          images: what is coded.
          seen: what decoding gives, if not the same: contexts hold its pixels.
        """
        seen = images if seen is None else seen
        self._padded = context.pad(seen)
        easy = context.easy_pixels(self._padded)
        self._values = images.reshape(-1)
        self._ink = (seen > 0).reshape(-1)
        self._size = images[0].size
        self._easy = np.flatnonzero(easy).astype(np.int32)
        self._hard = np.flatnonzero(~easy | (seen > 0)).astype(np.int32)
        self.pixels = images.size
        self.easy_per_image = len(self._easy) / len(images)
        self.hard_per_image = len(self._hard) / len(images)

    def _take(self, index: np.ndarray) -> dict[str, np.ndarray]:
        image, pixel = np.divmod(index, self._size)
        return {
            "context": context.gather(self._padded, image, pixel),
            "pixel": pixel,
            "value": self._values[index],
            "ink": self._ink[index],
        }

    def draw(self, rng: np.random.Generator, hard: int, easy: int) -> dict:
        """A random batch of `hard` and `easy` pixels."""
        return {
            "hard": self._take(rng.choice(self._hard, hard)),
            "easy": self._take(rng.choice(self._easy, easy)),
        }

    def every(self, size: int) -> Iterator[tuple[str, dict, int]]:
        """Every pixel, `size` at a time: (kind, pixels, count that is not padding)."""
        for kind, index in (("hard", self._hard), ("easy", self._easy)):
            for start in range(0, len(index), size):
                piece = index[start : start + size]
                yield kind, self._take(np.resize(piece, size)), len(piece)
