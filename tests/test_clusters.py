"""`--distributed` where JAX finds the others by itself: under Slurm, on TPU pods.

Real processes on one machine get the variables that Slurm's `srun`, Kubernetes or the
metadata server of a TPU's machine give; only the chips are missing.
"""

import dataclasses
import http.server
import os
import re
import subprocess
import sys
import threading

import pytest
from test_distributed import assert_alike, finish
from test_pages import ROOT, blocks
from test_parallel import free_port
from tools import kill_study

from emnist_jax.storage.results import load_results

pytestmark = pytest.mark.long
HOSTS = ("127.0.0.1", "127.0.0.2")  # both are this machine
# Runs one command as both tasks of a job, as srun does, a task a node.
SRUN = """#!/bin/bash
export SLURM_STEP_NODELIST='127.0.0.[1-2]' SLURM_NTASKS=2 SLURM_LOCALID=0
for task in 0 1; do
  SLURM_PROCID=$task "$@" &
done
wait -n && wait -n
"""
# A program that JAX believes to run on a TPU's machine though it has no TPU.
ON_TPU = """
import os, runpy, sys
import jax
os.environ.pop("TPU_SKIP_MDS_QUERY", None)
runpy.run_path(sys.argv.pop(1), run_name="__main__")
"""


def settings(config, workdir):
    config = dataclasses.replace(config, workdir=str(workdir), distributed=True)
    return kill_study.command(config)[1:]


def start(call, **environment):
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "1"} | environment
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(call, env=environment, cwd=ROOT, **pipes)


def check(run, run_path, said):
    assert "device  2 x " in said and said.count("epoch   2/2") == 1, said
    assert load_results(run)["environment"]["processes"] == 2
    assert_alike(run, run_path)


def test_the_script_for_slurm(finished, run_path, tmp_path):
    """That of docs/training.md, but that it trains what is finished."""
    config, _ = finished
    page = ROOT / "docs" / "training.md"
    (script,) = (text for _, _, text in blocks(page) if "#SBATCH" in text)
    # A task a GPU: JAX gives a task the one of its number on the node, and no other.
    count = re.compile(r"--ntasks-per-node=(\d+) --gpus-per-node=(\d+) ")
    assert len(set(count.search(script).groups())) == 1
    flags = " ".join(settings(config, tmp_path)[1:])
    for name, text in (
        ("srun", SRUN),
        ("python", f'#!/bin/bash\nexec {sys.executable} "$@" {flags}\n'),
        ("job.sh", script),
    ):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    job = str(os.getpid())  # of which JAX makes the port
    ((said, _),) = finish(start([tmp_path / "job.sh"], PATH=path, SLURM_JOB_ID=job))
    check(tmp_path / config.name, run_path, said)


class Metadata(http.server.BaseHTTPRequestHandler):
    """The metadata server of each machine of a pod, whose number begins the path."""

    def do_GET(self):
        worker, _, attribute = self.path[1:].partition("/computeMetadata/v1/instance/")
        answers = {
            "attributes/agent-worker-number": worker,
            "attributes/worker-network-endpoints": ",".join(HOSTS),
            "attributes/tpu-env": "ACCELERATOR_TYPE: 'v5litepod-8'\n",
        }
        self.send_response(200)
        self.end_headers()
        self.wfile.write(answers[attribute].encode())

    def log_message(self, *arguments):
        pass


@pytest.fixture
def metadata():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Metadata) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("kind", ["virtual machines", "Kubernetes"])
def test_a_tpu_pod(kind, finished, run_path, tmp_path, metadata):
    config, _ = finished
    port, both = str(free_port()), []
    for worker in range(2):
        environment = {
            "JAX_FORCE_TPU_INIT": "1",
            "JAX_COORDINATOR_PORT": port,  # 8482 may be taken here
            "GCE_METADATA_IP": f"{metadata}/{worker}",
        }
        if kind == "Kubernetes":
            named = {
                "TPU_WORKER_ID": str(worker),
                "TPU_WORKER_HOSTNAMES": ",".join(HOSTS),
            }
            environment |= named
        call = [sys.executable, "-c", ON_TPU, *settings(config, tmp_path)]
        both.append(start(call, **environment))
    (said, _), (silent, _) = finish(*both)
    assert "epoch" not in silent
    check(tmp_path / config.name, run_path, said)
