"""Maps `do_shard` over tasks: here, or on the devices of a Ray cluster."""

import dataclasses
import json
import logging
import os
import socket
import time
from collections.abc import Iterator, Sequence
from typing import Any

from emnist_jax import cpu
from emnist_jax.bulk.index import Job
from emnist_jax.bulk.shards import Task, do_shard
from emnist_jax.cli.errors import UserError

IN_FLIGHT = 2  # tasks an actor: one waits while the other is done


def attempt(task: Task) -> dict[str, Any]:
    """`do_shard` as JSON-able values; with 'error' where its user can mend it.

    Beside them 'seconds' of processor time.
    """
    started = time.process_time()
    try:
        outcome = do_shard(task)._asdict()
        return {**outcome, "seconds": time.process_time() - started}
    except (UserError, OSError) as error:  # no room for temporary files, say
        return {"shard": task.shard, "error": str(error)}


def here(tasks: Sequence[Task]) -> Iterator[dict[str, Any]]:
    """One after the other, in this process and on all its devices."""
    return map(attempt, tasks)


def on_ray(tasks: Sequence[Task], address: str, cores: int) -> Iterator[dict[str, Any]]:
    """On every device of a Ray cluster; outcomes as they come, each shard's once.

    A stateful actor a GPU or TPU, or else a share of the CPU cores. Whatever an actor
    or a machine leaves when it dies another one does again: a shard is there whole or
    not at all, and twice the same bytes.

    Args:
      tasks: what to do.
      address: of the cluster, as for `ray.init`.
      cores: of the share.

    Raises:
      UserError: Ray is not installed, there is no such cluster, or it fails.
    """
    # Of an actor's arguments in the object store, which live as long as the driver.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise UserError(
            f"--address={address}: needs Ray: pip install 'emnist-jax[ray]'"
        ) from error
    try:
        _expect_somebody(address)
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"--address={address}: no Ray cluster ({reason}); start one with `ray "
            "start --head`, and join machines with `ray start --address=HOST:PORT`"
        ) from error
    try:
        _be_quiet()
        share, actors = _share(ray.cluster_resources(), cores)
        rows = [{"task": json.dumps(dataclasses.asdict(task))} for task in tasks]
        outcomes = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
            Worker,
            # Idle ones go: a pool of fixed size would hold what a lost actor needs.
            compute=ray.data.ActorPoolStrategy(
                min_size=1,
                initial_size=min(actors, len(rows)),
                max_size=len(rows),
                max_tasks_in_flight_per_actor=IN_FLIGHT,
            ),
            **share,
        )
        for row in outcomes.iter_rows():
            yield json.loads(row["outcome"])
    except ray.exceptions.RayError as error:  # no actor could be had, say
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"--address={address}: the cluster failed ({reason}); the same command "
            "goes on"
        ) from error
    finally:
        ray.shutdown()


def _share(cluster: dict[str, float], cores: int) -> tuple[dict[str, Any], int]:
    """What of a cluster one actor takes, in Ray's words, and how many have room."""
    for kind, share in (
        ("GPU", {"num_gpus": 1, "num_cpus": 1}),
        ("TPU", {"resources": {"TPU": 1}, "num_cpus": 1}),
    ):
        if actors := int(cluster.get(kind, 0)):
            return share, actors
    if actors := int(cluster.get("CPU", 0)) // cores:
        return {"num_cpus": cores}, actors
    raise UserError(
        f"--cores={cores}: the cluster has {cluster.get('CPU', 0):g} in all"
    )


def _expect_somebody(address: str) -> None:
    """Raises OSError if nobody listens there: Ray would end this process."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdecimal() and "/" not in host:
        socket.create_connection((host, int(port)), timeout=10).close()


def _be_quiet() -> None:
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False  # ours counts images
    logging.getLogger("ray.data").setLevel(logging.ERROR)


class Worker:
    """An actor: it holds a device, and what `do_shard` loads once."""

    def __init__(self):
        """Tells JAX, before it starts, what of the machine is this actor's."""
        import ray

        cpu.prepare_process()
        share = ray.get_runtime_context().get_assigned_resources()
        if share.keys() == {"CPU"}:
            os.environ["JAX_PLATFORMS"] = "cpu"
            os.environ["NPROC"] = f"{share['CPU']:.0f}"

    def __call__(self, row: dict[str, str]) -> dict[str, str]:
        """The outcome of one task, both as JSON."""
        task = json.loads(row["task"])
        task["job"] = Job(**task["job"])
        return {"outcome": json.dumps(attempt(Task(**task)))}
