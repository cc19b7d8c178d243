"""Kubernetes objects: what Ratchet and Kubernetes read in them, and the way back."""

from __future__ import annotations

import dataclasses
import ipaddress
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ratchet import labels
from ratchet.impairment import Impairment
from ratchetctl import manifest
from ratchetctl.topo import dump, names, render, write
from ratchetctl.topo.dump import Value
from ratchetctl.topo.model import End, File, Link, Node, Port, Topology, Uplink
from tests.unit.ratchetctl.topo.reading import topology


def rendered(found: Topology) -> str:
    return "".join(dump.documents(render.objects(found)))


def objects(found: Topology, kind: str) -> list[dict[str, object]]:
    return [one for one in yaml.safe_load_all(rendered(found)) if one["kind"] == kind]


def address(text: str) -> ipaddress.IPv4Interface | ipaddress.IPv6Interface:
    return ipaddress.ip_interface(text)


A = Node("a", "a", "linux", "alpine:3")
B = Node("b", "b", "linux", "alpine:3")


def test_a_pods_labels_are_what_ratchet_reads(tmp_path: Path) -> None:
    found = Topology(
        "lab",
        (A, B),
        (
            Link(
                End("a", "eth1", address("10.0.0.0/31")), End("b", "eth1", address("10.0.0.1/31"))
            ),
            Link(End("a", "eth2"), End("b", "eth2", address("2001:db8::1/64"))),
        ),
    )
    path = tmp_path / "pods.yaml"
    path.write_text(rendered(found))
    first, second = manifest.read([str(path)]).pods
    wiring = labels.parse(first.labels, first.annotations, own_name="a", cni_ifname="eth0")
    assert [
        (link.ifname, str(link.address), link.pair, link.pair_ifname) for link in wiring.links
    ] == [
        ("eth1", "10.0.0.0/31", "b", "eth1"),
        ("eth2", "None", "b", "eth2"),
    ]
    assert [str(link.pair_address) for link in wiring.links] == ["10.0.0.1/31", "2001:db8::1/64"]
    assert labels.is_eligible(second.labels, second.annotations)
    assert not labels.parse(second.labels, {}, own_name="b", cni_ifname="eth0").links


def test_files_ports_commands_and_loopbacks_become_objects() -> None:
    node = Node(
        "a",
        "A_1",
        "frr",
        "frr",
        files=(File("/etc/frr/frr.conf", "x\n"), File("/other/frr.conf", "y\n")),
        ports=(Port(80, 8080), Port(22, 30022, name="ssh"), Port(53, None, "UDP")),
        commands=("sysctl -w x=1",),
        loopbacks=(address("10.9.9.9/32"),),
        node_selector=(("side", "left"),),
    )
    found = Topology("my lab", (node, B), (Link(End("a", "eth1"), End("b", "eth1")),))
    (config,) = objects(found, "ConfigMap")
    assert config["data"] == {"frr.conf": "x\n", "2-frr.conf": "y\n"}
    (service,) = objects(found, "Service")
    assert service["spec"] == {
        "type": "NodePort",
        "selector": {"topo.ratchet/topology": "my-lab", "topo.ratchet/node": "a"},
        "ports": [
            {"name": "tcp-80", "protocol": "TCP", "port": 8080, "targetPort": 80},
            {"name": "ssh", "protocol": "TCP", "port": 22, "targetPort": 22, "nodePort": 30022},
            {"name": "udp-53", "protocol": "UDP", "port": 53, "targetPort": 53},
        ],
    }
    pod = objects(found, "Pod")[0]
    spec = pod["spec"]
    assert isinstance(spec, dict)
    assert spec["nodeSelector"] == {"side": "left"}
    (init,) = spec["initContainers"]
    assert init["command"][-1] == "ip address replace 10.9.9.9/32 dev lo"
    (container,) = spec["containers"]
    assert [one["subPath"] for one in container["volumeMounts"]] == ["frr.conf", "2-frr.conf"]
    script = container["lifecycle"]["postStart"]["exec"]["command"][-1]
    assert script.splitlines()[0] == "set -e"
    assert "/proc/sys/net/ipv4/conf/eth1" in script.splitlines()[1]
    assert script.splitlines()[-1] == "sysctl -w x=1"


TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=30)
VALUES: st.SearchStrategy[Value] = st.recursive(
    st.one_of(TEXTS, st.integers(), st.booleans(), st.just("yes"), st.just("1.5"), st.just("a: b")),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=4),
        st.dictionaries(TEXTS.filter(bool), inner, min_size=1, max_size=4),
    ),
    max_leaves=12,
)


@settings(deadline=None)
@given(st.dictionaries(TEXTS.filter(bool), VALUES, min_size=1, max_size=4))
def test_what_is_written_as_yaml_is_read_as_what_it_was(value: dict[str, Value]) -> None:
    assert yaml.safe_load(dump.document(value)) == value


@pytest.mark.parametrize(
    "value", ["y", "No", "on", "1e3", "0x1", "1_0", "0o7", "12:30", "~", "null"]
)
def test_what_some_reader_takes_for_something_else_is_quoted(value: str) -> None:
    assert dump.text(value) == f'"{value}"'
    assert dump.document({"a": value}) == f'a: "{value}"\n'


@pytest.mark.parametrize("value", ["r1", "eth1", "10.0.0.0/31", "alpine:3", "quay.io/a/b:10.2.1"])
def test_what_no_reader_mistakes_is_plain(value: str) -> None:
    assert dump.text(value) == value


NAMES = st.from_regex(r"[a-z]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
LINES = st.text(
    st.characters(codec="ascii", categories=["L", "N", "P", "S"]), min_size=1, max_size=15
)
PORTS = st.builds(
    Port,
    st.integers(1, 65535),
    st.none() | st.integers(30000, 32767),
    st.sampled_from(["TCP", "UDP"]),
)


@st.composite
def topologies(draw: st.DrawFn) -> Topology:
    pods = draw(st.lists(NAMES, min_size=1, max_size=6, unique=True))
    nodes = tuple(
        Node(
            name=name,
            title=draw(st.sampled_from([name, name.upper()])),
            kind=draw(st.sampled_from(["linux", "frr", "cisco_xrd", "something"])),
            image=draw(st.sampled_from(["alpine:3", "a.b/c:1@sha256:00"])),
            command=draw(st.none() | st.lists(LINES, min_size=1, max_size=3).map(tuple)),
            args=tuple(draw(st.lists(LINES, max_size=3))),
            env=tuple(draw(st.dictionaries(NAMES, LINES, max_size=3)).items()),
            files=tuple(
                File(f"/etc/{path}", f"{content}\n")
                for path, content in draw(st.dictionaries(NAMES, LINES, max_size=3)).items()
            ),
            commands=tuple(draw(st.lists(st.sampled_from(["true", "echo $HOSTNAME"]), max_size=2))),
            ports=tuple(draw(st.lists(PORTS, max_size=2, unique_by=lambda port: port.inside))),
            labels=tuple(draw(st.dictionaries(NAMES, NAMES, max_size=2)).items()),
            node_selector=tuple(draw(st.dictionaries(NAMES, NAMES, max_size=2)).items()),
            loopbacks=tuple(draw(st.sampled_from([(), (address("10.9.0.1/32"),)]))),
            routing=draw(st.sampled_from(["", "ospf"])),
        )
        for name in pods
    )
    links = []
    counts = dict.fromkeys(pods, 0)
    for number in range(draw(st.integers(0, 8)) if len(pods) > 1 else 0):
        ends: list[End] = []
        for name in draw(st.permutations(pods))[:2]:
            counts[name] += 1
            has_address = draw(st.booleans())
            interface = address(f"10.{number}.0.{len(ends) + 1}/24") if has_address else None
            mac = f"02:00:00:00:{number:02x}:{len(ends):02x}" if draw(st.booleans()) else None
            ends.append(End(name, f"eth{counts[name]}", interface, mac, draw(IMPAIRMENTS)))
        links.append(Link(ends[0], ends[1], draw(st.none() | st.integers(1280, 9000))))
    uplinks = []
    for number, name in enumerate(draw(st.lists(st.sampled_from(pods), max_size=2))):
        counts[name] += 1
        end = End(name, f"eth{counts[name]}", address(f"10.99.{number}.2/24"), None)
        end = dataclasses.replace(end, impairment=draw(IMPAIRMENTS))
        kind = draw(st.sampled_from(["macvlan", "host"]))
        far = address(f"10.99.{number}.1/24") if kind == "host" else None
        uplinks.append(Uplink(end, kind, f"eno{number}", far, draw(st.none() | st.just(1400))))
    return Topology(draw(NAMES), nodes, tuple(links), tuple(uplinks))


IMPAIRMENTS = st.sampled_from(
    [
        None,
        Impairment(rate_bits=8_000, delay_us=1_500, jitter_us=10, loss_ppm=5_000, corrupt_ppm=1),
        Impairment(loss_ppm=1_000_000),
    ]
)


# Each example writes files, and may take its time on a machine that does other things.
@settings(max_examples=25, deadline=None)
@given(topologies())
def test_render_import_render_gives_the_same(tmp_path_factory: object, found: Topology) -> None:
    folder = Path(getattr(tmp_path_factory, "mktemp")("round"))  # noqa: B009 - a fixture of any scope
    text = rendered(found)
    once, _ = topology(folder, text, "pods.yaml")
    assert rendered(once) == text
    # And by way of a file in containerlab's format.
    for node, file in write.needs_files(once):
        path = folder / write.bind_path("files", node, file)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(file.content)
    twice, _ = topology(folder, "".join(write.definition(once)))
    assert sorted(rendered(twice).splitlines()) == sorted(text.splitlines())


def test_interface_mappings_survive_the_way_back(tmp_path: Path) -> None:
    found, _ = topology(
        tmp_path,
        "name: lab\ntopology:\n  nodes:\n    Leaf_1: {kind: nokia_srlinux}\n    b: {image: x}\n"
        "  links:\n    - endpoints: ['Leaf_1:ethernet-1/1', 'b:Ethernet3']\n",
    )
    once, _ = topology(tmp_path, rendered(found), "pods.yaml")
    assert once.nodes == found.nodes
    assert "Leaf_1:ethernet-1/1" in "".join(write.definition(once))


def test_pod_names() -> None:
    assert [names.pod_name(one) for one in ("Leaf_1", "São Paulo", "---", "a" * 80)] == [
        "leaf-1",
        "sao-paulo",
        None,
        "a" * 63,
    ]
