"""Accelerators that are not here: their compilers, and what their makers publish."""

import dataclasses
import importlib.metadata
import importlib.util
import os
from collections.abc import Mapping, Sequence

import jax
from jax.experimental import topologies

from emnist_jax.cli.errors import UserError

# XLA's description of an NVIDIA H100 80GB HBM3 (GpuTargetConfigProto as text).
_H100 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_core: 233472
  shared_memory_per_block_optin: 232448 core_count: 132 fpus_per_core: 128
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 clock_rate_ghz: 1.98
  device_memory_size: 84978434048 cuda_compute_capability { major: 9 }
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 8 patch: 0 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""


@dataclasses.dataclass(frozen=True)
class Target:
    """A kind of accelerator, as its maker describes it.

    Attributes:
      platform: 'tpu' or 'cuda'.
      topology: of the most devices that programs are compiled for here.
      most: how many these are.
      peak: dense FLOP/s of matrix products, by the type a program computes in.
      bandwidth: bytes/s of the device's memory.
      memory: bytes of it.
    """

    platform: str
    topology: str
    most: int
    peak: Mapping[str, float]
    bandwidth: float
    memory: float


# Google Cloud's pages on TPU v5e and v6e, NVIDIA's data sheet of the H100 SXM. Float32
# stands for what JAX makes of it by default: bfloat16 products on TPU, TF32 on H100.
TARGETS = {
    "v5e": Target(
        "tpu", "v5e:2x2", 4, dict.fromkeys(("float32", "bfloat16"), 197e12), 819e9, 16e9
    ),
    "v6e": Target(
        "tpu",
        "v6e:2x2",
        4,
        dict.fromkeys(("float32", "bfloat16"), 918e12),
        1640e9,
        32e9,
    ),
    "h100": Target(
        "cuda", "1x1x{}", 2, {"float32": 495e12, "bfloat16": 989e12}, 3350e9, 80e9
    ),
}
# In place of a TPU machine's metadata server; and compiling needs no chip to itself.
_TPU_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
_MODULES = {"tpu": ("libtpu",), "cuda": ("jax_cuda12_plugin", "nvidia.cuda_nvcc")}


def wheels() -> list[str]:
    """What to install, without a device or a driver, to compile for all targets."""
    version = importlib.metadata.version("jax")
    plugins = [f"jax-cuda12-{part}=={version}" for part in ("plugin", "pjrt")]
    return [f"jax[tpu]=={version}", *plugins, "nvidia-cuda-nvcc-cu12"]


def check(name: str) -> None:
    """Raises `UserError` if the compiler for a target is not installed."""
    if not all(map(_found, _MODULES[TARGETS[name].platform])):
        needed = " ".join(f"'{wheel}'" for wheel in wheels())
        raise UserError(f"{name}: its compiler is not installed: pip install {needed}")


def devices(name: str, count: int) -> Sequence[jax.Device]:
    """Devices to compile for, none of them here.

    Args:
      name: of `TARGETS`.
      count: how many.

    Raises:
      UserError: the compiler is not installed.
    """
    check(name)
    target = TARGETS[name]
    if target.platform == "cuda":
        described = topologies.get_topology_desc(
            topology_name=name,
            platform="cuda",
            target_config=_H100,
            topology=target.topology.format(count),
        )
        return described.devices
    for variable, value in _TPU_ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    return topologies.get_topology_desc(target.topology, "tpu").devices[:count]


def _found(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # a package above it
        return False
