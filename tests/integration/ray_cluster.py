"""A Ray cluster on this machine, on loopback, and this process as its driver."""

import os
import time
from contextlib import contextmanager
from tempfile import TemporaryDirectory

import pytest

# Read when Ray is imported. The second keeps it on 127.0.0.1, where its servers then listen alone.
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"

ADDRESS = "127.0.0.1"
NODE = {"include_dashboard": False, "node_ip_address": ADDRESS}
STORE = 80 * 2**20  # bytes
QUICK = {"health_check_initial_delay_ms": 500, "health_check_period_ms": 300, "health_check_failure_threshold": 2}
PATIENCE_S = 30


@contextmanager
def cluster_of(nodes, store=STORE):
    """A cluster of nodes with a CPU each, and a head without, to which the driver is connected."""
    import ray
    from ray.cluster_utils import Cluster

    settings = NODE | {"object_store_memory": store}

    class Fragile(Cluster):
        def kill(self, said):
            """End the node whose id is begun in this text as if its power had failed; another one comes for it."""
            (node,) = (node for node in self.worker_nodes if node.node_id[:8] in said)
            self.remove_node(node, allow_graceful=False)
            self.add_node(num_cpus=1, **settings)

    with TemporaryDirectory(prefix="nl-ray-", dir="/tmp") as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", folder)  # all of Ray, and what nodes that are killed leave behind
        cluster = Fragile(True, head_node_args={"num_cpus": 0, "_system_config": QUICK, **settings})
        try:
            for _ in range(nodes):
                cluster.add_node(num_cpus=1, **settings)
            ray.init(cluster.address, namespace="neuroloop", log_to_driver=False)
            yield cluster
        finally:
            ray.shutdown()
            cluster.shutdown()


def gone(pid):
    """Whether a process ends within a moment."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        try:
            with open(f"/proc/{pid}/stat") as file:
                if file.read().rpartition(")")[2].split()[0] in "ZX":
                    return True
        except FileNotFoundError:
            return True
        time.sleep(0.02)
    return False
