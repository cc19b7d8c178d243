"""Configurations that are made from a topology: what asks for them, and what they say."""

from __future__ import annotations

from pathlib import Path

import pytest

from ratchetctl.errors import TopologyError
from ratchetctl.sim.routers import frr_daemons
from ratchetctl.topo import render
from ratchetctl.topo.model import File, Topology
from ratchetctl.topo.routing.configured import configured
from tests.unit.ratchetctl.topo import reading

LAB = """\
name: lab
topology:
  defaults: {{labels: {{topo.ratchet/routing: {protocol}}}}}
  nodes:
    r1: {{kind: frr, exec: {loopbacks}}}
    r2: {{kind: {kind}}}
    host: {{kind: linux}}
  links:
    - endpoints: ["r1:eth1", "r2:eth1"]
{addresses}
    - endpoints: ["host:eth1", "r1:eth2"]
      ipv4: ["10.1.0.2/24", "10.1.0.1/24"]
"""


def lab(
    path: Path, protocol: str, kind: str = "frr", addresses: str = "", loopbacks: str = "[]"
) -> Topology:
    text = LAB.format(protocol=protocol, kind=kind, addresses=addresses, loopbacks=loopbacks)
    return configured(read(path, text))


def read(path: Path, text: str) -> Topology:
    return reading.topology(path, text)[0]


def config(found: Topology, name: str = "r1") -> list[str]:
    (node,) = (node for node in found.nodes if node.name == name)
    (file,) = node.files
    return file.content.splitlines()


def under(lines: list[str], head: str) -> list[str]:
    """Return the indented lines below a head."""
    start = lines.index(head) + 1
    end = next((n for n, line in enumerate(lines[start:], start) if line[:1] != " "), len(lines))
    return [line.strip() for line in lines[start:end]]


def test_ospf_speaks_on_links_between_routers_and_knows_those_of_hosts(tmp_path: Path) -> None:
    found = lab(tmp_path, "ospf")
    lines = config(found)
    assert "ip ospf network point-to-point" in under(lines, "interface eth1")
    assert under(lines, "interface eth2") == ["ip ospf area 0", "ip ospf passive"]
    assert under(lines, "interface lo") == ["ip ospf area 0"]
    loopback = found.nodes[0].loopbacks[0]
    assert under(lines, "router ospf")[0] == f"ospf router-id {loopback.ip}"
    # What routing needs was handed out, and the host is as it was.
    assert all(end.address is not None for end in found.links[0].ends)
    assert found.nodes[2].files == found.nodes[2].loopbacks == ()


def test_ipv6_has_ospf_version_3_and_isis_both(tmp_path: Path) -> None:
    addresses = '      ipv6: ["fd00::1/64", "fd00::2/64"]\n'
    loopbacks = '["ip address add fd00::9/128 dev lo"]'
    lines = config(lab(tmp_path, "ospf", addresses=addresses, loopbacks=loopbacks))
    assert "ipv6 ospf6 area 0" in under(lines, "interface eth1")
    assert "ip ospf area 0" in under(lines, "interface eth2")
    assert "router ospf6" in lines
    lines = config(lab(tmp_path, "isis", addresses=addresses, loopbacks=loopbacks))
    assert under(lines, "interface eth1")[:2] == ["ip router isis 1", "ipv6 router isis 1"]


def test_isis_has_a_title_of_the_routers_own(tmp_path: Path) -> None:
    found = lab(tmp_path, "isis")
    nets = [under(config(found, name), "router isis 1")[0] for name in ("r1", "r2")]
    assert nets == ["net 49.0001.0101.2800.0001.00", "net 49.0001.0101.2800.0002.00"]
    assert "isis passive" in under(config(found), "interface eth2")


def test_bgp_between_frr_routers_needs_no_addresses(tmp_path: Path) -> None:
    found = lab(tmp_path, "bgp")
    assert [end.address for end in found.links[0].ends] == [None, None]
    lines = config(found)
    assert "router bgp 4200000001" in lines
    assert "router bgp 4200000002" in config(found, "r2")
    assert " neighbor eth1 interface remote-as external" in lines
    assert "  network 10.1.0.0/24" in lines
    assert not any("eth2" in line for line in lines)


def test_bgp_with_addresses_uses_them(tmp_path: Path) -> None:
    found = lab(tmp_path, "bgp", addresses='      ipv4: ["10.0.0.0/31", "10.0.0.1/31"]\n')
    assert " neighbor 10.0.0.1 remote-as 4200000002" in config(found)
    found = lab(tmp_path, "bgp", addresses='      ipv6: ["fd00::1/64", "fd00::2/64"]\n')
    assert "  neighbor fd00::2 activate" in config(found)


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("bird", "  neighbor 10.0.0.0 as 4200000001;"),
        ("gobgp", '    neighbor-address = "10.0.0.0"'),
    ],
)
def test_other_programs_have_sessions_with_addresses(tmp_path: Path, kind: str, line: str) -> None:
    found = lab(tmp_path, "bgp", kind)
    assert line in config(found, "r2")
    assert " neighbor 10.0.0.1 remote-as 4200000002" in config(found)


def test_bird_speaks_ospf_with_the_timers_of_frr(tmp_path: Path) -> None:
    lines = config(lab(tmp_path, "ospf", "bird"), "r2")
    assert '    interface "eth1" { type ptp; hello 1; dead 4; retransmit 2; };' in lines


@pytest.mark.parametrize(("protocol", "kind"), [("isis", "bird"), ("ospf", "gobgp")])
def test_what_a_program_does_not_speak_is_refused(tmp_path: Path, protocol: str, kind: str) -> None:
    with pytest.raises(TopologyError, match=rf":6: node r2 is to speak {protocol}.*{kind}"):
        lab(tmp_path, protocol, kind)


def test_an_unknown_protocol_is_refused_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(TopologyError, match=r":5: .*'rip'; write one of ospf, isis, bgp"):
        lab(tmp_path, "rip")


def test_a_routers_own_configuration_stays(tmp_path: Path) -> None:
    text = LAB.format(protocol="ospf", kind="frr", addresses="", loopbacks="[]").replace(
        "r1: {", 'r1: {startup-config: "hostname own\\n", '
    )
    found = configured(read(tmp_path, text))
    assert found.nodes[0].files == (File("/etc/frr/frr.conf", "hostname own\n"),)
    assert "router ospf" in config(found, "r2")


def test_every_router_is_configured_where_the_command_says_so(tmp_path: Path) -> None:
    text = LAB.format(protocol="", kind="frr", addresses="", loopbacks="[]")
    assert configured(read(tmp_path, text)).nodes[0].files == ()
    assert "router isis 1" in config(configured(read(tmp_path, text), "isis"))


def test_the_image_of_frr_is_told_which_daemons_to_start(tmp_path: Path) -> None:
    found = lab(tmp_path, "bgp")
    maps = [one for one in render.objects(found) if one["kind"] == "ConfigMap"]
    data = maps[0]["data"]
    assert isinstance(data, dict)
    assert set(data) == {"frr.conf", "daemons"}
    assert "bgpd=yes" in str(data["daemons"]).splitlines()
    files = {f"/etc/frr/{name}": str(text) for name, text in data.items()}
    runs = [daemon.name for daemon in frr_daemons.plan(files, "r1").daemons]
    assert runs == ["zebra", "bgpd", "staticd"]


@pytest.mark.parametrize("protocol", ["ospf", "isis", "bgp"])
def test_the_simulator_runs_the_daemon_that_was_asked_for(tmp_path: Path, protocol: str) -> None:
    (file,) = lab(tmp_path, protocol).nodes[0].files
    daemons = [one.name for one in frr_daemons.plan({file.path: file.content}, "r1").daemons]
    assert daemons == ["zebra", f"{protocol}d"]


GRAPH = """\
<graphml><graph>
<node id="a"/><node id="b"/>
<edge source="a" target="b"/>
</graph></graphml>
"""


def test_nodes_of_a_drawing_become_routers_where_routing_is_asked_for(tmp_path: Path) -> None:
    drawn, _ = reading.topology(tmp_path, GRAPH, "drawing.graphml")
    assert {node.kind for node in configured(drawn).nodes} == {"linux"}
    found = configured(drawn, "ospf")
    assert {(node.kind, node.routing) for node in found.nodes} == {("frr", "ospf")}
    assert "ip ospf area 0" in under(config(found, "a"), "interface eth1")


def test_routing_for_hosts_alone_is_refused(tmp_path: Path) -> None:
    hosts = read(tmp_path, "name: lab\ntopology:\n  nodes: {a: {kind: linux}}\n")
    with pytest.raises(TopologyError, match="lab: --routing bgp: no node is a router; its kind"):
        configured(hosts, "bgp")
