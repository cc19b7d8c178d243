"""What the node's agent costs: memory, CPU and what it asks of the API server, with a full node.

    sudo .venv/bin/python -m benchmarks.agent [--pods 250]

A child with `--stay` runs on one node of the laboratory, first without a kubeconfig and then as the
agent, beside the API server of the tests. Pods are of the size of a Deployment's, managed fields
included, and a tenth of them are labelled. The figures of decision 16 and of docs/growth.md come
from here.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import shutil
import sys
import tempfile
import time
import uuid
from typing import Any

from tests.lab import programs
from tests.lab.agent import NODE_NAME, AgentBed
from tests.lab.api_objects import Obj
from tests.lab.api_server import Authority
from tests.lab.cluster import Cluster
from tests.lab.polling import wait_for

IDLE_S = 30.0
LABELLED_EVERY = 10


def pod(number: int) -> Obj:
    """Return a running pod as the API server stores one of a Deployment with two containers."""
    labels = {"app": "web", "pod-template-hash": "7d9f8c6b5"}
    if number % LABELLED_EVERY == 0:
        labels |= {"ratchet": "true", "ratchet.primary": "false", "ratchet.pod_name": f"r{number}"}
    probe = {"httpGet": {"path": "/healthz", "port": 8080, "scheme": "HTTP"}, "periodSeconds": 10}
    mount = {
        "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
        "name": "kube-api-access",
    }
    container: dict[str, Any] = {
        "image": "registry.example.com/team/web:1.27.3",
        "imagePullPolicy": "IfNotPresent",
        "env": [{"name": f"SETTING_{n}", "value": f"value-{n}"} for n in range(8)],
        "livenessProbe": probe,
        "readinessProbe": probe,
        "resources": {"limits": {"memory": "256Mi"}, "requests": {"cpu": "100m", "memory": "64Mi"}},
        "volumeMounts": [mount],
    }
    state = {"running": {"startedAt": "2025-01-31T12:00:00Z"}}
    owned: dict[str, Any] = {
        f"f:{name}": {f"f:{key}": {} for key in container} for name in ("app", "sidecar")
    }
    types = ("Initialized", "Ready", "ContainersReady", "PodScheduled")
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"web-7d9f8c6b5-{number:05}",
            "namespace": "default",
            "uid": str(uuid.uuid4()),
            "creationTimestamp": "2025-01-31T12:00:00Z",
            "labels": labels,
            "annotations": {"checksum/config": "0" * 64, "prometheus.io/scrape": "true"},
            "managedFields": [
                {
                    "manager": manager,
                    "operation": "Update",
                    "apiVersion": "v1",
                    "time": "2025-01-31T12:00:00Z",
                    "fieldsType": "FieldsV1",
                    "fieldsV1": {"f:spec": {"f:containers": owned}, "f:status": {"f:phase": {}}},
                }
                for manager in ("kube-controller-manager", "kubelet")
            ],
        },
        "spec": {
            "nodeName": NODE_NAME,
            "serviceAccountName": "web",
            "containers": [{**container, "name": name} for name in ("app", "sidecar")],
            "volumes": [{"name": "kube-api-access", "emptyDir": {}}],
        },
        "status": {
            "phase": "Running",
            "podIP": "10.88.1.2",
            "conditions": [
                {"type": one, "status": "True", "lastTransitionTime": "2025-01-31T12:00:00Z"}
                for one in types
            ],
            "containerStatuses": [
                {
                    "name": name,
                    "image": container["image"],
                    "imageID": "sha256:" + "0" * 64,
                    "containerID": "containerd://" + "0" * 64,
                    "ready": True,
                    "restartCount": 0,
                    "state": state,
                }
                for name in ("app", "sidecar")
            ],
        },
    }


def memory_kb(pid: int) -> int:
    """Return what a process has for itself: its proportional share of memory."""
    with open(f"/proc/{pid}/smaps_rollup") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Pss:"))


def cpu_s(pid: int) -> float:
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def settled(pid: int) -> int:
    time.sleep(3)
    return memory_kb(pid)


def show(what: str, value: str) -> None:
    print(f"{what:<52} {value:>14}", flush=True)


def measure(bed: AgentBed, count: int) -> None:
    node = bed.node
    bed.start(kubeconfig=None)
    plain = settled(node.wait_child())
    show("a child with --stay, without an agent, MB", f"{plain / 1024:.1f}")
    bed.stop()

    pods = [pod(number) for number in range(count)]
    size = len(json.dumps(pods[1]))
    show("one pod, bytes", f"{size}")
    for one in pods:
        bed.objects.put_pod(copy.deepcopy(one))
    began = time.monotonic()
    bed.start()
    pid = node.wait_child()
    wait_for("all pods", bed.status, until=lambda one: one and one["known"] == count, timeout_s=60)
    show(f"from its start until {count} pods are known, s", f"{time.monotonic() - began:.2f}")
    listed = settled(pid)
    show(f"the agent, {count} pods listed, MB more", f"{(listed - plain) / 1024:.1f}")

    before, cpu = len(bed.api.calls), cpu_s(pid)
    for one in pods:  # a start changes a pod's status about five times
        for _ in range(5):
            bed.objects.put_pod(copy.deepcopy(one))
    wait_for("quiet", lambda: cpu_s(pid), until=lambda now: now == cpu_s(pid), timeout_s=30)
    churned = settled(pid)
    show(f"after {count} pods have started, MB more", f"{(churned - plain) / 1024:.1f}")
    show("CPU for each pod that starts, ms", f"{(cpu_s(pid) - cpu) / count * 1000:.2f}")
    show("requests for each pod that starts", f"{(len(bed.api.calls) - before) / count:.2f}")

    cpu, before = cpu_s(pid), len(bed.api.calls)
    time.sleep(IDLE_S)
    show("CPU when nothing happens, % of a core", f"{(cpu_s(pid) - cpu) / IDLE_S * 100:.3f}")
    show("requests in that time", f"{len(bed.api.calls) - before}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pods", type=int, default=250)
    count = parser.parse_args().pods
    made = programs.prepare()
    folder = tempfile.mkdtemp(prefix="ratchet-agent-")
    cluster = Cluster(nodes=1)
    bed = None
    try:
        bed = AgentBed(cluster.nodes[0], folder, Authority(os.path.join(folder, "ca")), NODE_NAME)
        measure(bed, count)
    finally:
        if bed is not None:
            bed.close()
        cluster.end_test()
        cluster.close()
        programs.remove(made)
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
