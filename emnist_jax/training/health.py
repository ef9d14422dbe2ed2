"""Dead and diverged training, read off the metrics of each step."""

import math
from collections.abc import Mapping

from emnist_jax.cli.errors import UserError

DEAD_AFTER = 50  # steps in a row without gradient or with constant outputs


class TrainingFailed(UserError):
    """Training has died or diverged."""

    def __init__(self, status: str, message: str):
        """`status` is 'dead' or 'diverged', as in the results."""
        super().__init__(message)
        self.status = status


def check(step: int, metrics: Mapping[str, float], dead_steps: int) -> int:
    """Looks at the metrics of a step.

    Args:
      step: its number, from 1.
      metrics: 'loss', 'gradient_norm', 'learning_rate'; and 'output_range', which is
        about 0 when every output is the same constant, where outputs can saturate.
      dead_steps: how many steps in a row were dead before it.

    Returns:
      How many are now.

    Raises:
      TrainingFailed: the training is dead, or a value is not finite.
    """
    loss, norm = metrics["loss"], metrics["gradient_norm"]
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise TrainingFailed(
            "diverged",
            f"training diverged at step {step}: loss {loss}, gradient norm {norm}, "
            f"learning rate {metrics['learning_rate']:g}; lower --learning_rate or "
            "give more --warmup_steps; the last good checkpoint is kept",
        )
    # A saturated sigmoid: one constant comes out, or no gradient comes back.
    constant = metrics.get("output_range", 1.0) < 1e-4
    dead_steps = dead_steps + 1 if (norm == 0 or constant) and loss > 1e-6 else 0
    if dead_steps >= DEAD_AFTER:
        raise TrainingFailed(
            "dead",
            f"training is dead at step {step}: for {DEAD_AFTER} steps every output was "
            "one constant or the gradient 0, because the output sigmoid is saturated; "
            "start with --output_bias=mean and --initialization=glorot_uniform, a "
            "lower --learning_rate or another --seed",
        )
    return dead_steps
