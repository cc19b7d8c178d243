"""The DaemonSet of deploy/ with containerd: its image and its pod as they are, made by a kubelet.

It installs Ratchet in front of the plugin that a machine has, its agent links pods, another pod
takes its place, and when it is deleted the machine is as it was.
"""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.e2e import test_build
from tests.e2e.containerd import Containerd, Sandbox
from tests.e2e.cri import PodConfig
from tests.e2e.images import NAME, Images
from tests.e2e.kubelet import Kubelet, Obj, Running
from tests.e2e.machine import Machine
from tests.integration.test_deploy_etcd import make as make_certificates
from tests.integration.test_install_cluster import token
from tests.lab.api_pods import ApiPods
from tests.lab.api_server import ApiServer, Authority
from tests.lab.cluster import Cluster
from tests.lab.etcd_server import SecureEtcd
from tests.lab.namespaces import random_port
from tests.lab.polling import wait_for
from tests.lab.runtime import PAIR, in1_in2, primary
from tests.lab.underlay import ROUTER_ADDRESS
from tests.unit.test_deploy import one

pytestmark = [pytest.mark.root, pytest.mark.slow, test_build.pytestmark]

DAEMONSET = "/apis/apps/v1/namespaces/ratchet/daemonsets/ratchet"
TOKENS = "/api/v1/namespaces/ratchet/serviceaccounts/ratchet/token"
GRACE_S = 60
# The machine's own, so that nothing of this test's machine is touched.
FOLDERS = ("/etc/cni", "/opt", "/var/lib")
KEPT = ("/etc/cni/net.d", "/opt/cni/bin", "/run/ratchet", "/var/lib/ratchet")


class NewNode(ApiPods):
    """A machine with containerd and its usual plugin, on which Ratchet has never been."""

    name = "node-1"

    def __init__(self, undo: ExitStack, folder: Path, archive: Path) -> None:
        cluster = Cluster(nodes=1)
        undo.callback(cluster.close)
        (self.node,) = cluster.nodes
        self.network = ""
        certificates, volumes = folder / "certificates", folder / "volumes"
        for made in (certificates, volumes):
            made.mkdir()
        make_certificates(certificates, ROUTER_ADDRESS)
        etcd = secure_etcd(cluster, certificates)
        undo.callback(etcd.stop)
        etcd.start()
        authority = Authority(str(folder / "authority"))
        certificate = authority.issue("apiserver", hosts=f"IP:{ROUTER_ADDRESS}")
        self.api = cluster.underlay.do(lambda: ApiServer(certificate, address=ROUTER_ADDRESS))
        undo.callback(self.api.close)
        self.objects = self.api.objects
        self.api.others["POST", TOKENS] = lambda: (201, {"status": {"token": self.token()}})
        self.machine = Machine(self.node, f"/rt-{secrets.token_hex(4)}", FOLDERS)
        undo.callback(self.machine.stop)
        self.machine.start()
        self.containerd = Containerd(self.machine, None, str(folder / "containerd"))
        undo.callback(self.containerd.kill)
        self.containerd.install()
        self.containerd.start()
        for image in (None, str(archive)):
            self.containerd.load_image(image)
        usual = {"cniVersion": "1.0.0", "name": "cbr0", **self.node.bridge_config()}
        self.containerd.configure(usual, conflist=True)
        self.kubelet = Kubelet(
            self.containerd,
            volumes,
            services={
                "KUBERNETES_SERVICE_HOST": ROUTER_ADDRESS,
                "KUBERNETES_SERVICE_PORT": str(self.api.port),
                "RATCHET_ETCD_SERVICE_HOST": ROUTER_ADDRESS,
                "RATCHET_ETCD_SERVICE_PORT": str(etcd.port),
            },
            fields={"status.hostIP": self.node.address, "spec.nodeName": self.name},
        )
        (self.kubelet.account / "token").write_text(self.token())
        shutil.copy(authority.ca, self.kubelet.account / "ca.crt")
        client = {path.name: path.read_bytes() for path in (certificates / "client").iterdir()}
        self.kubelet.volume("secret", "ratchet-etcd-client", client)

    @property
    def state_dir(self) -> str:
        return self.machine.path(f"/run/ratchet/{self.network}")

    def token(self) -> str:
        """Give another token of the service account, which lasts a day."""
        now, number = int(time.time()), len(self.api.tokens)
        subject = "system:serviceaccount:ratchet:ratchet"
        given = token(sub=subject, iat=now, exp=now + 24 * 3600, jti=number)
        self.api.tokens.add(given)
        return given

    def apply(self, folder: str) -> Obj:
        """Have the API server know what is in a folder of deploy/; the DaemonSet's template."""
        self.api.others["GET", DAEMONSET] = lambda: (200, {"metadata": {}})
        settings = one(folder, "ConfigMap")["data"]["settings.json"]
        self.kubelet.volume("configmap", "ratchet", {"settings.json": settings.encode()})
        template = one(folder, "DaemonSet")["spec"]["template"]
        assert isinstance(template, dict)
        return template

    def delete_daemonset(self, pod: Running) -> None:
        self.api.others["GET", DAEMONSET] = lambda: (404, {"message": "not found"})
        self.kubelet.end(pod, GRACE_S)

    def run(self, name: str, labels: dict[str, str]) -> Sandbox:
        """Create a pod that is bound to the node, and have its kubelet run it."""
        pod = PodConfig(name, labels=labels)
        self.create(pod, labels)
        sandbox = self.containerd.run(pod)
        self.running(pod)
        return sandbox

    def delete(self, *sandboxes: Sandbox) -> None:
        for sandbox in sandboxes:
            sandbox.remove()
            self.objects.delete_pod(sandbox.pod.namespace, sandbox.pod.name)
        wait_for(
            "the records to go",
            lambda: self.machine.listed(f"/run/ratchet/{self.network}/attachments"),
            until=lambda records: not records,
        )

    def ratchetctl_status(self, pod: Running, folder: str) -> str:
        """Do `kubectl exec POD -c agent -- FOLDER/ratchetctl status`, which has to be content."""
        agent = pod.containers["agent"]
        code, told = self.containerd.cri.execute(agent, f"{folder}/ratchetctl", "status")
        assert code == 0, told
        return told

    def files(self) -> dict[str, list[str]]:
        """Return what is in the folders that are the runtime's and Ratchet's."""
        return {folder: self.machine.listed(folder) for folder in KEPT}


def secure_etcd(cluster: Cluster, certificates: Path) -> SecureEtcd:
    """Return an etcd with the certificates of the job in deploy/."""
    server = certificates / "server"
    return SecureEtcd(
        cluster.underlay,
        ROUTER_ADDRESS,
        random_port(),
        str(certificates),
        str(server / "ca.crt"),
        (str(server / "tls.crt"), str(server / "tls.key")),
    )


@pytest.fixture(scope="module")
def new_node(images: Images, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NewNode]:
    folder = tmp_path_factory.mktemp("node")
    (image,) = {each["image"] for each in containers(one(".", "DaemonSet")["spec"]["template"])}
    images.podman("tag", f"{NAME}:first", image)
    archive = folder / "ratchet.tar"
    images.podman("save", "--format", "docker-archive", "--output", str(archive), image)
    with ExitStack() as undo:
        yield NewNode(undo, folder, archive)


def containers(template: Obj) -> list[Obj]:
    return [*template["spec"]["initContainers"], *template["spec"]["containers"]]


@contextmanager
def running(node: NewNode, template: Obj) -> Iterator[Running]:
    """Run the DaemonSet's pod, and show what it has said if something fails."""
    pod = node.kubelet.run(template)
    try:
        node.wait_watching()
        yield pod
    except BaseException:
        for each in containers(template):
            print(f"log of {each['name']}:\n{pod.log(each['name'])}")
        raise


def test_the_daemonset_installs_links_is_replaced_and_leaves_nothing(new_node: NewNode) -> None:
    node, node.network = new_node, "cbr0"
    before = node.files()
    early = node.run("early", {"app": "web"})
    template = node.apply(".")
    with running(node, template) as first:
        assert "00-ratchet.json" in node.files()["/etc/cni/net.d"]
        left = node.run("primary-pod", in1_in2("pair-pod"))
        right = node.run("pair-pod", PAIR)
        left.netns.wait_ping("192.168.2.101")
        node.wait_event(left.pod, "LinkUp", "veth, on this node")
        assert node.gets() == []
        assert "primary-pod" in node.ratchetctl_status(first, "/opt/cni/bin")
    with left.netns.watch("in1") as in1, right.netns.watch("in2") as in2:
        node.kubelet.end(first, GRACE_S)
        assert "00-ratchet.json" in node.files()["/etc/cni/net.d"]
        with running(node, template) as second:
            late = node.run("late", primary("in3", "10.3.0.1", "pair-pod", "in4", "10.3.0.2"))
            late.netns.wait_ping("10.3.0.2")
        assert in1.flaps() == in2.flaps() == []
    node.delete(left, right, late)
    node.delete_daemonset(second)
    assert node.files() == before
    node.run("plain", {"app": "web"}).remove()
    early.remove()


def test_the_agent_alone_links_pods_from_its_container(new_node: NewNode) -> None:
    """It sees their namespaces, which the runtime mounts on the machine after it has started."""
    node, node.network = new_node, "ratchet"
    before = node.files()
    template = node.apply("overlays/agent-only")
    with running(node, template) as pod:
        left = node.run("primary-pod", in1_in2("pair-pod"))
        right = node.run("pair-pod", PAIR)
        left.netns.wait_ping("192.168.2.101")
        node.wait_condition(left.pod, "True", "LinksUp")
        assert node.files()["/opt/cni/bin"] == before["/opt/cni/bin"]
        assert "primary-pod" in node.ratchetctl_status(pod, "/opt/ratchet")
    node.delete(left, right)
    node.delete_daemonset(pod)
    assert node.files() == before
