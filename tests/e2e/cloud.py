"""What a Kubernetes cluster is to a CNI plugin: machines with containerd, etcd, an API server.

Nodes, underlay and etcd are those of the integration tests' harness; what is added are real
runtimes in the harness's place, and the API server's stand-in on the underlay, over TLS.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tests.e2e.containerd import Containerd, Sandbox
from tests.e2e.cri import PodConfig
from tests.e2e.machine import CNI_CACHE, Machine
from tests.lab.api_objects import Objects
from tests.lab.api_server import TOKEN, ApiServer, Authority, kubeconfig
from tests.lab.cluster import Cluster, end_pids
from tests.lab.polling import wait_for
from tests.lab.runtime import SUPERVISOR, Config, Node, changed
from tests.lab.underlay import ROUTER_ADDRESS

API_ADDRESS = ROUTER_ADDRESS
ANNOTATIONS = "io.kubernetes.cri.pod-annotations"
LOG_LINES = 60
# What may run on a machine on which there is no pod.
RESIDENTS = {"sleep", "containerd", SUPERVISOR, "ratchet-child"}


class Cloud:
    """Two machines with containerd, one etcd and one API server."""

    def __init__(self, programs: str, machines: int = 2) -> None:
        self._undo = contextlib.ExitStack()
        self.last_words: list[tuple[str, str]] = []
        try:
            self._build(programs, machines)
        except BaseException:
            self._undo.close()
            raise

    def _build(self, programs: str, machines: int) -> None:
        self._undo.enter_context(cni_cache_folder())
        self.cluster = Cluster(nodes=machines)
        self._undo.callback(self.cluster.close)
        self.etcd = self.cluster.etcd
        self._undo.callback(self.end_children)
        authority = Authority(self._path("authority"))
        self._certificate = authority.issue("apiserver", hosts=f"IP:{API_ADDRESS}")
        self.api = self._serve()
        self._undo.callback(self._close_api)
        self.kubeconfig = kubeconfig(
            self._path("kubeconfig"),
            {"server": self.api.url, "certificate-authority": authority.ca},
            {"token": TOKEN},
        )
        self._baseline = {
            node.number: node.namespace.names() | {"cni0"} for node in self.cluster.nodes
        }
        self.nodes: list[Containerd] = []
        for node in self.cluster.nodes:
            machine = Machine(node, f"/rt-{secrets.token_hex(4)}")
            self._undo.callback(machine.stop)
            machine.start()
            node_dir = self._path(f"containerd{node.number}")
            containerd = Containerd(machine, programs, node_dir)
            self._undo.callback(containerd.kill)
            containerd.install()
            containerd.start()
            containerd.load_image()
            self.nodes.append(containerd)
        self.configure()

    def _path(self, name: str) -> str:
        return os.path.join(self.cluster.directory, name)

    def _serve(self, port: int = 0, objects: Objects | None = None) -> ApiServer:
        # A socket stays in the namespace in which it was made.
        return self.cluster.underlay.do(
            lambda: ApiServer(self._certificate, address=API_ADDRESS, port=port, objects=objects)
        )

    def _close_api(self) -> None:
        self.api.close()  # which is not the one of the beginning

    def start_api(self) -> ApiServer:
        """Have the API server be there again, with what it has kept; nothing is wrong with it."""
        self.api.close()
        self.api = self._serve(self.api.port, self.api.objects)
        return self.api

    def close(self) -> None:
        self._undo.close()

    def end_children(self) -> None:
        """End the children; what they have made stays."""
        for node in self.cluster.nodes:
            with contextlib.suppress(AssertionError):
                end_pids(node.namespace, set(node.supervisors()))
                end_pids(node.namespace, set(node.children()))

    # Configuration

    def config(self, node: Node, **changes: Any) -> Config:
        """Return a node's `10-ratchet.conf`: labels from the API server, eth0 from the bridge."""
        config = node.config(
            child_path=None,  # the runtime's plugin folder has it
            boot_network=None,
            kubeconfig=self.kubeconfig,
        )
        return changed(config, changes)

    def configure(self, *, conflist: bool = False, **changes: Any) -> None:
        """Give every node its network configuration; a change to None leaves the key out."""
        for containerd in self.nodes:
            containerd.configure(self.config(containerd.node, **changes), conflist=conflist)

    def configure_annotations(self, **changes: Any) -> None:
        """Configure nodes that have no API server and take annotations from the runtime."""
        self.configure(capabilities={ANNOTATIONS: True}, kubeconfig=None, **changes)

    def pod(
        self,
        name: str,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
        namespace: str = "default",
    ) -> PodConfig:
        """Create a pod at the API server and return what a kubelet tells the runtime of it."""
        pod = PodConfig(name, namespace, dict(labels or {}), dict(annotations or {}))
        self.api.add_pod(name, pod.labels, pod.annotations, namespace=pod.namespace, uid=pod.uid)
        return pod

    def run(
        self,
        name: str,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
        *,
        on: int = 0,
        namespace: str = "default",
    ) -> Sandbox:
        """Create a pod and have a node run it."""
        return self.nodes[on].run(self.pod(name, labels, annotations, namespace))

    # The end of a test

    def problems_after_test(self) -> list[str]:
        """Remove every pod and return what is left behind that should not be."""
        problems: list[str] = []
        self.etcd.resume()
        self.etcd.start()
        for containerd in self.nodes:
            _attempt(problems, containerd.start)
            _attempt(problems, containerd.remove_all)
        _attempt(problems, self._keys_gone)
        for containerd in self.nodes:
            _attempt(problems, lambda node=containerd: self._nothing_left(node))  # type: ignore[misc]
        return problems

    def end_test(self) -> list[str]:
        """Configure everything as it was at the start. The children go on, as they would."""
        problems: list[str] = []
        self.api.faults.clear()
        self.api.pods.clear()
        self.api.requests.clear()
        self.api.calls.clear()
        self.api.allowed = True
        for node in self.cluster.nodes:
            # The bridge plugin keeps it, and would go on with it in the next test's way.
            node.namespace.ip("link", "delete", "cni0", check=False)
        _attempt(problems, self.configure)
        return problems

    def wipe(self) -> None:
        """Take away what a failed test may have left behind."""
        self.end_children()
        for containerd in self.nodes:
            for name in containerd.node.records():
                os.unlink(os.path.join(containerd.node.state_dir, "attachments", name))
            for ifname in (
                containerd.node.namespace.names() - self._baseline[containerd.node.number]
            ):
                containerd.node.namespace.ip("link", "delete", ifname, check=False)
        self.etcd.wipe()

    def words(self) -> list[tuple[str, str]]:
        """Return what helps to understand a failure."""
        said = []
        for containerd in self.nodes:
            number = containerd.node.number
            log = "\n".join(containerd.node.log().splitlines()[-LOG_LINES:])
            said += [
                (f"log of node {number}", log),
                (f"log of containerd {number}", containerd.log(LOG_LINES // 2)),
            ]
        keys = repr(self.etcd.tree()) if self.etcd.answers() else "etcd does not answer"
        return [*said, ("etcd keys", keys)]

    def _keys_gone(self) -> None:
        wait_for(
            "all etcd keys but vxlanid to go",
            self.etcd.tree,
            until=lambda tree: set(tree) <= {"/ratchet/", "/ratchet/vxlanid"},
        )

    def _nothing_left(self, containerd: Containerd) -> None:
        node, machine = containerd.node, containerd.machine

        def left() -> dict[str, Any]:
            seen = {
                "records": node.records(),
                "namespaces": machine.listed("/run/netns"),
                "mounts": machine.mounts() - {"/run", CNI_CACHE},
                "processes": set(machine.processes().values()) - RESIDENTS,
                "links": node.namespace.names() - self._baseline[node.number],
                "leases": [name for name in leases(node) if name[0].isdigit()],
                "cache": machine.listed(f"{CNI_CACHE}/results"),
            }
            return {what: things for what, things in seen.items() if things}

        wait_for(f"everything to leave node {node.number}", left, until=lambda things: not things)


def leases(node: Node) -> list[str]:
    """Return the addresses that host-local has given to pods of a node."""
    folder = node.bridge_config()["ipam"]["dataDir"]
    with contextlib.suppress(FileNotFoundError):
        return sorted(os.listdir(os.path.join(folder, "ratchet-test")))
    return []


@contextlib.contextmanager
def cni_cache_folder() -> Iterator[None]:
    """See to it that the folder is there on which each machine mounts its own."""
    made = [path for path in (os.path.dirname(CNI_CACHE), CNI_CACHE) if not os.path.isdir(path)]
    for path in made:
        os.mkdir(path)
    try:
        yield
    finally:
        for path in reversed(made):
            with contextlib.suppress(OSError):  # somebody else has found a use for it
                os.rmdir(path)


def _attempt(problems: list[str], action: Callable[[], object]) -> None:
    try:
        action()
    except Exception as error:  # noqa: BLE001 - all problems are wanted, not the first alone
        problems.append(f"{type(error).__name__}: {error}")
