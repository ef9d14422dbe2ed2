"""JAX's start, and what a machine without the platform asked for says."""

from emnist_jax import cpu
from emnist_jax.cli.errors import UserError


def start() -> None:
    """Starts JAX on the platform that the environment or the program names.

    Raises:
      UserError: that platform is not there.
    """
    import jax

    if cpu.owns_process():
        # Then a step's memory is allocated by the main thread, in the one arena of
        # malloc that can keep so large a piece: see `cpu.prepare_process`.
        jax.config.update("jax_cpu_enable_async_dispatch", False)
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # JAX' ways to say so
        reason = f" ({str(error).splitlines()[0]})" if str(error) else ""
        raise UserError(
            f"JAX_PLATFORMS={jax.config.jax_platforms or ''}: is not available "
            f"here{reason}; JAX_PLATFORMS=cpu always is; a GPU needs its driver and "
            "the extra: pip install 'emnist-jax[cuda]'"
        ) from error
