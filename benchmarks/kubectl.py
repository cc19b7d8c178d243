"""How long `kubectl ratchet links -A` takes for a cluster of many links, and how much memory.

    .venv/bin/python -m benchmarks.kubectl [--links 10000] [--per-pod 1] [--program PROGRAM]

A server on 127.0.0.1 gives the pages of a list, encoded beforehand, so that the time is that of the
tool alone. Pods are those of `benchmarks.agent`, and each link has two of them. The figures of
docs/kubectl.md come from here.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from benchmarks import agent
from ratchet import annotations as told
from ratchet.annotations import NodeTold, PodTold
from ratchet.status import LinkStatus

PAGE = 500
NODES = 1000


def pages(links: int, per_pod: int) -> list[bytes]:
    """Return the pages of the list of all pods; every two of them have `per_pod` links."""
    items = []
    for number in range(0, links, per_pod):
        for side in (0, 1):
            obj = agent.pod(2 * number + side)
            name, peer = f"r{number}-{side}", f"r{number}-{1 - side}"
            ends = tuple(
                _end(number + n, n, peer, side) for n in range(min(per_pod, links - number))
            )
            node = f"node-{(number + side) % NODES}"
            obj["metadata"] |= {"name": name, "uid": name}
            obj["metadata"]["labels"] = {"ratchet": "true", "app": "router"}
            obj["metadata"]["annotations"] = {
                told.POD: PodTold(name, node, "192.168.0.1", ends).dumps()
            }
            obj["spec"]["nodeName"] = node
            items.append(obj)
    found = []
    for start in range(0, len(items), PAGE):
        more = start + PAGE < len(items)
        metadata = {"resourceVersion": "1", **({"continue": str(start + PAGE)} if more else {})}
        page = {"kind": "PodList", "metadata": metadata, "items": items[start : start + PAGE]}
        found.append(json.dumps(page).encode())
    return found


def _end(vni: int, number: int, peer: str, side: int) -> LinkStatus:
    return LinkStatus(
        ifname=f"eth{number}",
        peer=peer,
        state="up",
        primary=side == 0,
        address=f"10.0.0.{side + 1}/24",
        peer_ifname=f"eth{number}",
        peer_node="192.168.0.2",
        kind="vxlan",
        vni=vni + 11,
        since=1.7e9,
    )


def agents() -> bytes:
    """Return the list of the nodes' agents."""
    items = []
    for number in range(NODES):
        node = NodeTold("0.2.0", "ratchet", "192.168.0.1", "eth0", 4789, 1450, "reachable")
        obj = agent.pod(number)
        obj["metadata"] |= {"name": f"agent-{number}", "namespace": "ratchet", "uid": str(number)}
        obj["metadata"]["annotations"] = {told.NODE: node.dumps()}
        obj["spec"]["nodeName"] = f"node-{number}"
        obj["status"]["containerStatuses"] = [{"name": "agent", "ready": True}]
        items.append(obj)
    return json.dumps({"kind": "PodList", "metadata": {}, "items": items}).encode()


def serve(every: list[bytes], system: bytes) -> ThreadingHTTPServer:
    """Serve the lists."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            start = int(parse_qs(url.query).get("continue", ["0"])[0])
            body = system if "/namespaces/" in url.path else every[start // PAGE]
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--links", type=int, default=10_000)
    parser.add_argument("--per-pod", type=int, default=1, help="links that two pods share")
    parser.add_argument("--program", help="a built ratchetctl, in place of this interpreter's")
    arguments = parser.parse_args()
    # In a process of its own: its memory would count as the tool's, which begins as a copy.
    reader, writer = os.pipe()
    server = os.fork()
    if server == 0:
        every = pages(arguments.links, arguments.per_pod)
        port = serve(every, agents()).server_address[1]
        os.write(writer, f"{port} {sum(map(len, every))} {len(every)}\n".encode())
        signal.pause()
    port, size, count = map(int, os.read(reader, 100).split())
    program = [arguments.program] if arguments.program else [sys.executable, "-m", "ratchetctl"]
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "kubeconfig")
        cluster = {"server": f"http://127.0.0.1:{port}"}
        with open(path, "w") as file:
            json.dump(_kubeconfig(cluster), file)
        for output in ("table", "json"):
            argv = [*program, "kube", "links", "-A", "-o", output, "--kubeconfig", path]
            started = time.monotonic()
            shown = subprocess.run(argv, stdout=subprocess.PIPE, check=True).stdout
            took_s = time.monotonic() - started
            lines = shown.count(b"\n")
            print(f"{output}: {took_s:.1f} s for {lines} lines, {len(shown) / 1e6:.1f} MB")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    os.kill(server, signal.SIGKILL)
    print(f"read: {size / 1e6:.0f} MB in {count} pages")
    print(
        f"CPU of both: {used.ru_utime + used.ru_stime:.1f} s, peak {used.ru_maxrss / 1024:.0f} MB"
    )
    return 0


def _kubeconfig(cluster: dict[str, str]) -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }


if __name__ == "__main__":
    sys.exit(main())
