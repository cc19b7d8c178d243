"""k8s-topo, meshnet, kne and GraphML: what is taken, what is refused, and where it says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from ratchetctl.topo.model import File, Port
from tests.unit.ratchetctl.topo.reading import errors, links, topology

# k8s-topo


def test_k8s_topo_nodes_are_what_their_names_say(tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "sw-1").write_text("hostname sw-1\n")
    found, notes = topology(
        tmp_path,
        """\
etcd_port: 32379
conf_dir: ./conf
publish_base: {22: 30100}
ceos_image: ceos:4.32
custom_image: {qrtr: my/router}
env: {DEBUG: 1}
links:
  - endpoints: ["sw-2:eth1", "sw-1:eth1"]
  - endpoints: ["host-1:eth1:10.0.0.1/24", "qrtr-1:eth1:10.0.0.2/24"]
""",
        "lab.yml",
    )
    nodes = {node.name: node for node in found.nodes}
    assert found.name == "lab"
    assert {name: (node.kind, node.image) for name, node in nodes.items()} == {
        "sw-1": ("ceos", "ceos:4.32"),
        "sw-2": ("ceos", "ceos:4.32"),
        "host-1": ("linux", "alpine:3"),
        "qrtr-1": ("quagga", "my/router"),
    }
    assert nodes["sw-1"].files == (File("/mnt/flash/startup-config", "hostname sw-1\n"),)
    assert (nodes["sw-1"].ports, nodes["sw-2"].ports) == ((Port(22, 30100),), (Port(22, 30101),))
    assert ("DEBUG", "1") in nodes["host-1"].env
    assert links(found)[1] == "host-1:eth1:10.0.0.1/24 qrtr-1:eth1:10.0.0.2/24"
    assert notes == [
        (
            "lab.yml:1: the file: etcd_port is left out: Ratchet's etcd stands in the nodes'"
            " network configuration"
        )
    ]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("links:\n- endpoints: ['a:eth1', 'b:eth1', 'c:eth1']\n", "lab.yml:2: a link with 3"),
        ("links:\n- endpoints: ['a:eth1', 'b']\n", "lab.yml:2: endpoint 'b'"),
        ("links:\n- endpoints: ['a:eth1', 'b:eth1:1.2.3']\n", "lab.yml:2: address '1.2.3' of b"),
        (
            "conf_dir: gone\nlinks:\n- endpoints: ['a:e1', 'b:e1']\n",
            "lab.yml:1: conf_dir 'gone' is no folder",
        ),
        (
            "publish_base: {x: y}\nlinks:\n- endpoints: ['a:e1', 'b:e1']\n",
            "lab.yml:1: publish_base 'x: y'",
        ),
    ],
)
def test_k8s_topo_mistakes(tmp_path: Path, text: str, wanted: str) -> None:
    assert errors(tmp_path, text, "lab.yml")[0].startswith(wanted)


# meshnet

MESHNET = """\
apiVersion: networkop.co.uk/v1beta1
kind: Topology
metadata: {{name: r1}}
spec:
  links:
  - {{uid: 1, peer_pod: {peer}, local_intf: eth1, peer_intf: eth1, local_ip: 10.0.0.1/24,
     peer_ip: {peer_ip}}}
---
apiVersion: networkop.co.uk/v1beta1
kind: Topology
metadata: {{name: r2}}
spec:
  links:
  - {{uid: 1, peer_pod: r1, local_intf: eth1, peer_intf: {ifname}, local_ip: 10.0.0.2/24}}
---
apiVersion: v1
kind: Pod
metadata: {{name: r1}}
spec:
  containers: [{{name: c, image: busybox, command: [sleep, "1"]}}]
"""


def test_meshnet_joins_both_ends_and_takes_the_pods(tmp_path: Path) -> None:
    text = MESHNET.format(peer="r2", peer_ip="10.0.0.2/24", ifname="eth1")
    found, notes = topology(tmp_path, text)
    assert links(found) == ["r1:eth1:10.0.0.1/24 r2:eth1:10.0.0.2/24"]
    assert [(node.image, node.command) for node in found.nodes] == [
        ("busybox", ("sleep", "1")),
        ("alpine:3", None),
    ]
    assert notes == ["lab.clab.yml:11: pod r2 is not in the file: it becomes a plain alpine:3"]


def test_meshnets_localhost_is_a_macvlan(tmp_path: Path) -> None:
    text = MESHNET.format(peer="localhost", peer_ip="", ifname="eno1")
    text = text.replace("peer_intf: eth1", "peer_intf: eno1", 1).replace(
        "peer_pod: r1", "peer_pod: localhost"
    )
    found, _ = topology(tmp_path, text)
    assert [(one.end.node, one.kind, one.device) for one in found.uplinks] == [
        ("r1", "macvlan", "eno1"),
        ("r2", "macvlan", "eno1"),
    ]
    assert str(found.uplinks[0].end.address) == "10.0.0.1/24"


def test_meshnets_properties_are_told_with_what_to_write_instead(tmp_path: Path) -> None:
    text = MESHNET.format(peer="r2", peer_ip="10.0.0.2/24", ifname="eth1")
    _, notes = topology(tmp_path, text.replace("uid: 1,", "uid: 1, properties: {loss: '1'},", 1))
    assert notes[0] == (
        "lab.clab.yml:6: link 1 of r1: properties is left out:"
        " write them as labels of a link in containerlab's format"
    )


@pytest.mark.parametrize(
    ("peer", "peer_ip", "ifname", "wanted"),
    [
        ("r2", "10.0.0.9/24", "eth1", "lab.clab.yml:14: link 1 is r2:eth1:10.0.0.2/24 here"),
        ("r2", "10.0.0.2/24", "eth7", "lab.clab.yml:14: link 1 is r1:eth7 here, and r1:eth1:10"),
        ("physical/x", "10.0.0.2/24", "eth1", "lab.clab.yml:6: link 1 of r1 leads to 'physical"),
        ("r9", "10.0.0.2/24", "eth1", "lab.clab.yml:14: link 1 is r2:eth1:10.0.0.2/24 here"),
    ],
)
def test_meshnet_contradictions(
    tmp_path: Path, peer: str, peer_ip: str, ifname: str, wanted: str
) -> None:
    text = MESHNET.format(peer=peer, peer_ip=peer_ip, ifname=ifname)
    assert errors(tmp_path, text)[0].startswith(wanted)


# kne

KNE_TEXT = """\
name: "lab"
nodes: {
  name: "a"
  vendor: ARISTA
  config: { image: "ceos:4" file: "a.cfg" env { key: "K" value: "V" } }
  services { key: 22 value { name: "ssh" inside: 22 } }
  interfaces { key: "eth1" value { name: "Ethernet1" mtu: 1400 } }
}
nodes: { name: "b" vendor: HOST model: "x" }
links: { a_node: "a" a_int: "eth1" z_node: "b" z_int: "eth1" }
"""
KNE_YAML = """\
name: lab
nodes:
  - name: a
    vendor: ARISTA
    config: {image: "ceos:4", file: a.cfg, env: {K: V}}
    services: {22: {name: ssh, inside: 22}}
    interfaces: {eth1: {name: Ethernet1, mtu: 1400}}
  - {name: b, vendor: HOST, model: x}
links:
  - {a_node: a, a_int: eth1, z_node: b, z_int: eth1}
"""


def test_kne_in_text_and_yaml_form_is_one_topology(tmp_path: Path) -> None:
    (tmp_path / "a.cfg").write_text("hostname a\n")
    text, text_notes = topology(tmp_path, KNE_TEXT, "lab.pb.txt")
    from_yaml, yaml_notes = topology(tmp_path, KNE_YAML, "lab.yaml")
    assert text == from_yaml
    a, b = text.nodes
    assert (a.kind, a.image, b.kind) == ("ceos", "ceos:4", "linux")
    assert ("K", "V") in a.env
    assert a.files == (File("/mnt/flash/startup-config", "hostname a\n"),)
    assert a.ports == (Port(22, 22, name="ssh"),)
    assert links(text) == ["a:eth1: b:eth1:"]
    assert text.links[0].mtu == 1400
    assert "lab.pb.txt:9: node b: model is left out" in text_notes[0]
    assert "lab.yaml:8: node b: model is left out" in yaml_notes[0]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('nodes: { name: "a" vendor: NOBODY }\n', "l.pb.txt:1: node a has no image, and there"),
        (
            (
                'nodes: { name: "a" }\nnodes: { name: "b" }\n'
                'links: { a_node: "a" a_int: "e/{{1}}"\n z_node: "b" z_int: "e1" }\n'
            ),
            "l.pb.txt:3: interface 'e/{{1}}' of a: is a template",
        ),
        ('nodes: { name: "a" }\nlinks: { a_node: "a" }\n', "l.pb.txt:2: a link needs a_node"),
        ('name: "x" name: "y"\nnodes: {}\n', "l.pb.txt:1: the file: name must be one text"),
        ('nodes: { nam: "a" }\n', "l.pb.txt:1: a node needs a name"),
    ],
)
def test_kne_mistakes(tmp_path: Path, text: str, wanted: str) -> None:
    assert errors(tmp_path, text, "l.pb.txt")[0].startswith(wanted)


# GraphML

GRAPHML = """\
<graphml xmlns="http://graphml.graphdrawing.org/xmlns">
<key id="n" for="graph" attr.name="Network"/><key id="l" for="node" attr.name="label"/>
<graph edgedefault="undirected"><data key="n">Zoo</data>
<node id="0"><data key="l">São Paulo</data></node>
<node id="1"><data key="l">Wien</data></node>
<node id="2"><data key="l">Wien</data></node>
<edge source="0" target="1"/><edge source="1" target="2"/>
{more}
</graph></graphml>
"""


def test_graphml_names_nodes_by_their_labels_where_those_are_unique(tmp_path: Path) -> None:
    found, _ = topology(tmp_path, GRAPHML.format(more=""), "zoo.graphml")
    assert found.name == "Zoo"
    assert [node.name for node in found.nodes] == ["sao-paulo", "n1", "n2"]
    assert links(found) == ["sao-paulo:eth1: n1:eth1:", "n1:eth2: n2:eth1:"]


@pytest.mark.parametrize(
    ("more", "wanted"),
    [
        ('<edge source="0" target="9"/>', "zoo.graphml:8: the edge's target '9' is no node"),
        ("<hyperedge/>", "zoo.graphml:8: a hyperedge has more than two ends"),
        ("<node", "zoo.graphml:9: not XML"),
    ],
)
def test_graphml_mistakes(tmp_path: Path, more: str, wanted: str) -> None:
    assert errors(tmp_path, GRAPHML.format(more=more), "zoo.graphml")[0].startswith(wanted)


def test_graphml_refuses_entities(tmp_path: Path) -> None:
    text = f'<!DOCTYPE x [<!ENTITY a "aaaa">]>\n{GRAPHML.format(more="")}'
    assert errors(tmp_path, text, "zoo.graphml") == [
        "zoo.graphml:1: GraphML needs no entities; remove the <!ENTITY>"
    ]


# None of them


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", "lab.clab.yml: nothing in this file"),
        ("a: 1\n", "lab.clab.yml:1: no format that is known (its keys are a)"),
        ("- 1\n", "lab.clab.yml:1: no format that is known"),
        ("name: a\ntopology: {}\n---\nname: b\n", "lab.clab.yml:4: a second document"),
    ],
)
def test_other_files(tmp_path: Path, text: str, wanted: str) -> None:
    assert errors(tmp_path, text)[0].startswith(wanted)
