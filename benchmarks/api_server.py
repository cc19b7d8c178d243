"""A stand-in of the API server for the benchmark, as a process of its own.

    python -m benchmarks.api_server FOLDER POD...

It serves these pods (`POD` is NAME or NAME=LABELS as JSON) over TLS on 127.0.0.1 of the namespace
in which it was started, writes `FOLDER/kubeconfig.yaml` and then says `ready`. The server is that
of the integration tests.
"""

from __future__ import annotations

import json
import os
import signal
import sys

from benchmarks.bed import KUBERNETES_UID
from tests.lab.api_server import TOKEN, ApiServer, Authority, encoded, kubeconfig

NODE = "node-1"  # where the pods are


def main() -> int:
    folder, *pods = sys.argv[1:]
    authority = Authority(os.path.join(folder, "pki"))
    server = ApiServer(authority.issue("kubernetes"))
    for pod in pods:
        name, _, labels = pod.partition("=")
        server.add_pod(
            name, json.loads(labels) if labels else {"app": "web"}, uid=KUBERNETES_UID, node=NODE
        )
    kubeconfig(
        os.path.join(folder, "kubeconfig.yaml"),
        {"server": server.url, "certificate-authority-data": encoded(authority.ca)},
        {"token": TOKEN},
    )
    print("ready", flush=True)
    signal.sigwait({signal.SIGTERM})
    server.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
