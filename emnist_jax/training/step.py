"""The train step: a pure function of the train state and a batch."""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from emnist_jax.devices import parallel
from emnist_jax.training.optimizer import rate_state

Metrics = dict[str, jax.Array]
# (params, this device's batch, steps done) -> (loss [], further metrics [] each)
Loss = Callable[[Any, Any, jax.Array], tuple[jax.Array, Metrics]]
Step = Callable[["TrainState", Any], tuple["TrainState", Metrics]]


@flax.struct.dataclass
class TrainState:
    """Everything that a step changes; a plain tree of arrays."""

    step: jax.Array  # int32 [], steps done
    params: Any
    opt_state: Any
    average: Any  # of the parameters, like them; {} where none is kept

    @property
    def exported(self) -> Any:
        """The parameters to validate and export."""
        return self.average or self.params


def create_state(
    params: Any, optimizer: optax.GradientTransformation, average: bool = False
) -> TrainState:
    """The state before the first step, in memory of its own.

    Args:
      params: a tree of arrays; a step that reuses the state's memory leaves it alone.
      optimizer: of `make_optimizer`.
      average: whether to keep averaged parameters too.
    """

    def init(params):
        copies = [jax.tree.map(jnp.copy, params) for _ in range(1 + average)]
        return TrainState(
            step=jnp.zeros([], jnp.int32),
            params=copies[0],
            opt_state=optimizer.init(params),
            average=copies[1] if average else {},
        )

    return jax.jit(init)(params)  # compiled, no two leaves share an array


def make_train_step(
    loss_fn: Loss,
    optimizer: optax.GradientTransformation,
    average_decay: float | None = None,
) -> Step:
    """The step of one device inside `parallel.pmapped`.

    Args:
      loss_fn: what is minimised; its metrics must be the same on every device.
      optimizer: of `make_optimizer`.
      average_decay: of the averaged parameters, where the state keeps them; smaller
        in the first steps.

    Returns:
      A pure function of the state and this device's batch to the next state and
      metrics, both the same on every device: the loss, the loss function's own,
      'gradient_norm' and 'learning_rate'.
    """

    def train_step(state: TrainState, batch: Any) -> tuple[TrainState, Metrics]:
        (loss, metrics), gradients = jax.value_and_grad(loss_fn, has_aux=True)(
            state.params, batch, state.step
        )
        loss, gradients = parallel.mean_over_devices((loss, gradients))
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        average = state.average
        if average_decay is not None:
            keep = jnp.minimum(average_decay, (1 + state.step) / (10 + state.step))
            average = optax.incremental_update(params, average, 1 - keep)
        metrics = {
            "loss": loss,
            **metrics,
            "gradient_norm": optax.tree.norm(gradients),
            "learning_rate": rate_state(opt_state).rate,
        }
        return TrainState(state.step + 1, params, opt_state, average), metrics

    return train_step


def make_epoch_step(train_step: Step) -> Callable:
    """Several steps as one compiled call over examples that live on the device.

    Args:
      train_step: from `make_train_step`.

    Returns:
      A pure function of the state, all training examples `[N, ...]` and this
      device's rows `[K, B]` to the state after K steps and metrics `[K]`.
    """

    def epoch_step(state, examples, rows):
        def body(state, batch_rows):
            return train_step(state, examples[batch_rows])

        return jax.lax.scan(body, state, rows)

    return epoch_step
