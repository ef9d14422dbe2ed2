"""A Ray cluster of two nodes with a core each, on this machine.

Prints its address; then does what standard input says, a line each, and says what it
did: `workers` counts the actors of both nodes, `kill worker` kills one of the first
node with SIGKILL, `kill node` the whole second node. It ends with its input.
"""

import os
import pathlib
import signal
import sys

from ray.cluster_utils import Cluster


def actors(node) -> list[int]:
    """Process ids of a node's actors of Ray Data."""
    (raylet,) = node.all_processes["raylet"]
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            # The name is in brackets and may hold anything.
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            command = (path / "cmdline").read_bytes()
        except OSError:  # it has ended
            continue
        if parent == raylet.process.pid and b"MapWorker" in command:
            found.append(int(path.name))
    return found


def main() -> None:
    """Starts the nodes and obeys."""
    options = {"num_cpus": 1, "object_store_memory": 10**8}
    first = {**options, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=first)
    nodes = [cluster.head_node, cluster.add_node(**options)]
    say = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # Ray prints too
    print(cluster.address, file=say, flush=True)
    for line in sys.stdin:
        if line == "workers\n":
            answer = " ".join(str(len(actors(node))) for node in nodes)
        elif line == "kill worker\n":
            (answer,) = actors(nodes[0])[:1] or [0]
            if answer:
                os.kill(answer, signal.SIGKILL)
        elif line == "kill node\n":
            cluster.remove_node(nodes[1], allow_graceful=False)
            answer = "killed"
        print(answer, file=say, flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main()
