"""Folders of network configurations as clusters have them, and what changes in them later.

Facts (names of files, networks and plugins, keys that matter) are those of the projects' own
manifests; the files are written anew. Each folder says which file a runtime takes, because the
tests must not ask the code that they are about.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

PORTMAP = {"type": "portmap", "snat": True, "capabilities": {"portMappings": True}}
BANDWIDTH = {"type": "bandwidth", "capabilities": {"bandwidth": True}}
ANNOTATIONS = "io.kubernetes.cri.pod-annotations"


@dataclass(frozen=True)
class Folder:
    """A folder: files by name (objects are written as JSON) and the one that a runtime takes."""

    name: str
    first: str
    files: dict[str, Any]
    capabilities: frozenset[str] = frozenset()
    others: dict[str, str] = field(default_factory=dict)  # files that are no configuration

    @property
    def is_multus(self) -> bool:
        return "multus" in self.first

    def contents(self) -> dict[str, bytes]:
        """Return what is in each file."""
        found = {name: _bytes(value) for name, value in self.files.items()}
        return found | {name: text.encode() for name, text in self.others.items()}

    def taken(self) -> dict[str, Any]:
        """Return the configuration that a runtime takes."""
        found = json.loads(self.contents()[self.first])
        assert isinstance(found, dict)
        return found


def _bytes(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    # Neither in our indentation nor with our line ends: what is not ours stays as it is written.
    return value.encode() if isinstance(value, str) else json.dumps(value, indent=3).encode()


def network(name: str, *plugins: dict[str, Any], version: str = "0.3.1", **more: Any) -> Any:
    return {"name": name, "cniVersion": version, **more, "plugins": list(plugins)}


CALICO = {
    "type": "calico",
    "log_level": "info",
    "datastore_type": "kubernetes",
    "nodename": "node-1",
    "mtu": 0,
    "ipam": {"type": "calico-ipam"},
    "policy": {"type": "k8s"},
    "kubernetes": {"kubeconfig": "/etc/cni/net.d/calico-kubeconfig"},
}
FLANNEL = {"type": "flannel", "delegate": {"hairpinMode": True, "isDefaultGateway": True}}
CANAL = {**CALICO, "ipam": {"type": "host-local", "ranges": [[{"subnet": "usePodCidr"}]]}}
CILIUM = {"type": "cilium-cni", "enable-debug": False, "log-file": "/var/run/cilium/cni.log"}
AWS = {
    "name": "aws-cni",
    "type": "aws-cni",
    "vethPrefix": "eni",
    "mtu": "9001",
    "podSGEnforcingMode": "strict",
    "capabilities": {ANNOTATIONS: True},
}
EGRESS = {
    "name": "egress-cni",
    "type": "egress-cni",
    "enabled": "false",
    "ipam": {"type": "host-local", "ranges": [[{"subnet": "fd00::ac:00/118"}]]},
}
KINDNET = {
    "type": "ptp",
    "ipMasq": False,
    "ipam": {
        "type": "host-local",
        "dataDir": "/run/cni-ipam-state",
        "routes": [{"dst": "0.0.0.0/0"}],
        "ranges": [[{"subnet": "10.244.0.0/24"}]],
    },
    "mtu": 1500,
}
KUBE_ROUTER = {
    "name": "kubernetes",
    "type": "bridge",
    "bridge": "kube-bridge",
    "isDefaultGateway": True,
    "ipam": {"type": "host-local", "subnet": "10.42.1.0/24"},
}
WEAVE = {"name": "weave", "type": "weave-net", "hairpinMode": True}
FLANNEL_LIST = network("cbr0", FLANNEL, PORTMAP, version="0.3.1")
WEAVE_LIST = network("weave", WEAVE, PORTMAP, version="0.3.0")
KINDNET_LIST = network("kindnet", KINDNET, PORTMAP)
CALICO_LIST = network("k8s-pod-network", CALICO, PORTMAP, BANDWIDTH)
THIN = {
    "cniVersion": "0.3.1",
    "name": "multus-cni-network",
    "type": "multus",
    "capabilities": {"portMappings": True},
    "kubeconfig": "/etc/cni/net.d/multus.d/multus.kubeconfig",
    "delegates": [FLANNEL_LIST],
}
BRIDGE = {
    "type": "bridge",
    "bridge": "cni0",
    "isGateway": True,
    "ipMasq": True,
    "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.88.0.0/16"}]]},
}
RKE2_LIST = network("k8s-pod-network", CANAL, PORTMAP, BANDWIDTH)
KUBECONFIG = {"calico-kubeconfig": "apiVersion: v1\nkind: Config\n"}
PORTS, BOTH = frozenset({"portMappings"}), frozenset({"portMappings", "bandwidth"})

FOLDERS = (
    Folder("flannel", "10-flannel.conflist", {"10-flannel.conflist": FLANNEL_LIST}, PORTS),
    Folder(
        "flannel-old",
        "10-flannel.conf",
        {"10-flannel.conf": {"name": "cbr0", **FLANNEL}},  # no cniVersion
    ),
    Folder("calico", "10-calico.conflist", {"10-calico.conflist": CALICO_LIST}, BOTH, KUBECONFIG),
    Folder(
        "calico-with-istio",
        "10-calico.conflist",
        {
            "10-calico.conflist": network(
                "k8s-pod-network",
                CALICO,
                PORTMAP,
                {"type": "istio-cni", "kubernetes": {"exclude_namespaces": ["kube-system"]}},
            )
        },
        PORTS,
    ),
    Folder(
        "canal", "10-canal.conflist", {"10-canal.conflist": network("canal", CANAL, PORTMAP)}, PORTS
    ),
    Folder("rke2-canal", "10-canal.conflist", {"10-canal.conflist": RKE2_LIST}, BOTH, KUBECONFIG),
    Folder("cilium", "05-cilium.conflist", {"05-cilium.conflist": network("cilium", CILIUM)}),
    Folder(
        "cilium-after-flannel",
        "05-cilium.conflist",
        {"05-cilium.conflist": network("cilium", CILIUM)},
        others={"10-flannel.conflist.cilium_bak": json.dumps(FLANNEL_LIST)},
    ),
    Folder(
        "cilium-old",
        "05-cilium.conf",
        {"05-cilium.conf": {"cniVersion": "0.3.1", "name": "cilium", **CILIUM}},
    ),
    Folder("weave", "10-weave.conflist", {"10-weave.conflist": WEAVE_LIST}, PORTS),
    Folder("weave-old", "10-weave.conf", {"10-weave.conf": WEAVE}),
    Folder(
        "kube-router",
        "10-kuberouter.conf",
        {"10-kuberouter.conf": {"cniVersion": "0.3.0", **KUBE_ROUTER}},
    ),
    Folder(
        "kube-router-list",
        "10-kuberouter.conflist",
        {"10-kuberouter.conflist": network("mynet", KUBE_ROUTER, PORTMAP, version="0.3.0")},
        PORTS,
    ),
    Folder("kindnet", "10-kindnet.conflist", {"10-kindnet.conflist": KINDNET_LIST}, PORTS),
    Folder(
        "kindnet-own-plugin",
        "10-kindnet.conflist",
        {
            "10-kindnet.conflist": network(
                "kindnet",
                {"type": "cni-kindnet", "capabilities": {"portMappings": True}},
                version="0.4.0",
            )
        },
        PORTS,
    ),
    Folder(
        "multus-thin",
        "00-multus.conf",
        {"00-multus.conf": THIN, "10-flannel.conflist": FLANNEL_LIST},
        PORTS,
    ),
    Folder(
        "multus-thin-list",
        "00-multus.conflist",
        {
            "00-multus.conflist": network(
                "multus-cni-network",
                {"type": "multus", "delegates": [CALICO_LIST], "capabilities": {"bandwidth": True}},
                version="1.0.0",
            ),
            "10-calico.conflist": CALICO_LIST,
        },
        frozenset({"bandwidth"}),
    ),
    Folder(
        "multus-thick",
        "00-multus.conf",
        {
            "00-multus.conf": {
                "capabilities": {"bandwidth": True, "portMappings": True},
                "cniVersion": "0.3.1",
                "logLevel": "verbose",
                "logToStderr": True,
                "name": "multus-cni-network",
                "clusterNetwork": "/host/etc/cni/net.d/10-calico.conflist",
                "type": "multus-shim",
            },
            "10-calico.conflist": CALICO_LIST,
        },
        BOTH,
    ),
    Folder(
        "antrea",
        "10-antrea.conflist",
        {
            "10-antrea.conflist": network(
                "antrea",
                {"type": "antrea", "ipam": {"type": "host-local"}},
                PORTMAP,
                BANDWIDTH,
                version="0.3.0",
            )
        },
        BOTH,
    ),
    Folder(
        "aws",
        "10-aws.conflist",
        {
            "10-aws.conflist": network(
                "aws-cni", AWS, EGRESS, PORTMAP, version="0.4.0", disableCheck=True
            )
        },
        PORTS,
    ),
    Folder(
        "aws-with-cilium",
        "05-cilium.conflist",
        {
            "05-cilium.conflist": network(
                "aws-cni", AWS, PORTMAP, CILIUM, version="0.4.0", disableCheck=True
            ),
            "10-aws.conflist": network("aws-cni", AWS, PORTMAP, version="0.4.0", disableCheck=True),
        },
        PORTS,
    ),
    Folder(
        "gke",
        "10-gke-ptp.conflist",
        {
            "10-gke-ptp.conflist": network(
                "gke-pod-network",
                {
                    "type": "ptp",
                    "mtu": 1460,
                    "ipam": {
                        "type": "host-local",
                        "ranges": [[{"subnet": "10.8.1.0/24"}]],
                        "routes": [{"dst": "0.0.0.0/0"}],
                    },
                },
                PORTMAP,
            )
        },
        PORTS,
    ),
    Folder(
        "gke-dataplane-v2",
        "05-cilium.conflist",
        {
            "05-cilium.conflist": network(
                "gke-pod-network", {**CILIUM, "enable-route-mtu": True}, PORTMAP
            ),
            "10-gke-ptp.conflist": network("gke-pod-network", {"type": "ptp"}, PORTMAP),
        },
        PORTS,
    ),
    Folder(
        "aks",
        "10-azure.conflist",
        {
            "10-azure.conflist": network(
                "azure",
                {
                    "type": "azure-vnet",
                    "mode": "transparent",
                    "ipsToRouteViaHost": ["169.254.20.10"],
                    "ipam": {"type": "azure-vnet-ipam"},
                },
                PORTMAP,
                version="0.3.0",
            )
        },
        PORTS,
    ),
    Folder(
        "k3s",
        "10-flannel.conflist",
        {
            "10-flannel.conflist": network(
                "cbr0",
                {"type": "flannel", "delegate": {"hairpinMode": True, "forceAddress": True}},
                PORTMAP,
                BANDWIDTH,
                version="1.0.0",
            )
        },
        BOTH,
    ),
    Folder(
        "microk8s",
        "10-calico.conflist",
        {
            "10-calico.conflist": network(
                "k8s-pod-network",
                {**CALICO, "nodename_file_optional": True},
                PORTMAP,
                BANDWIDTH,
            )
        },
        BOTH,
        {"calico-kubeconfig": "apiVersion: v1\n"},
    ),
    Folder(
        "microk8s-flannel",
        "flannel.conflist",
        {"flannel.conflist": network("microk8s-flannel-network", FLANNEL, PORTMAP)},
        PORTS,
    ),
    Folder(
        "ovn-kubernetes",
        "10-ovn-kubernetes.conf",
        {
            "10-ovn-kubernetes.conf": {
                "cniVersion": "1.1.0",
                "name": "ovn-kubernetes",
                "type": "ovn-k8s-cni-overlay",
                "ipam": {},
                "dns": {},
            }
        },
    ),
    Folder(
        "cri-o",
        "100-crio-bridge.conflist",
        {
            "100-crio-bridge.conflist": network("crio", BRIDGE, version="1.0.0"),
            "200-loopback.conflist": network("loopback", {"type": "loopback"}, version="1.0.0"),
        },
    ),
    Folder(
        "containerd",
        "10-containerd-net.conflist",
        {
            "10-containerd-net.conflist": network(
                "containerd-net", BRIDGE, PORTMAP, version="1.0.0"
            ),
            "99-loopback.conf": {"cniVersion": "0.3.1", "name": "lo", "type": "loopback"},
        },
        PORTS,
    ),
    Folder(
        "two-networks",
        "10-calico.conflist",
        {"10-calico.conflist": CALICO_LIST, "10-flannel.conflist": FLANNEL_LIST},
        BOTH,
    ),
    Folder(
        "a-broken-one-first",
        "10-flannel.conflist",
        {
            "00-empty.conf": "",
            "01-half.conflist": '{"name": "half", "plugins": [',
            "02-list-as-conf.conf": FLANNEL_LIST,
            "03-no-name.conf": {"type": "bridge"},
            "04-not-utf8.json": b'{"name": "\xe9", "type": "bridge"}',
            "10-flannel.conflist": FLANNEL_LIST,
        },
        PORTS,
    ),
    Folder(
        "names-that-sort-early",
        "00-a.conf",
        {"00-a.conf": {"cniVersion": "0.3.1", "name": "early", **FLANNEL}},
    ),
)
