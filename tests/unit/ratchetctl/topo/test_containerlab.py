"""containerlab's definition: what is taken, what is refused, and where it says so."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest

from ratchet.impairment import Impairment
from ratchetctl.topo.model import End, File, Port, Uplink
from tests.unit.ratchetctl.topo.reading import errors, links, topology

TWO = """\
name: lab
topology:
  nodes:
    a: {{kind: linux, image: alpine}}
    b: {{kind: linux, image: alpine}}
  links:
    - {link}
"""


def test_nodes_inherit_from_defaults_kinds_groups_and_say_the_last_word(tmp_path: Path) -> None:
    found, notes = topology(
        tmp_path,
        """\
name: lab
topology:
  defaults:
    kind: linux
    env: {A: default, B: default, C: default, D: default}
    exec: [first]
  kinds:
    linux:
      image: kind
      env: {B: kind, C: kind, D: kind}
      exec: [second]
  groups:
    edge:
      env: {C: group, D: group}
      cmd: group
  nodes:
    a:
      group: edge
      image: own
      env: {D: own}
      exec: [third]
    b:
""",
    )
    a, b = found.nodes
    assert (a.image, b.image) == ("own", "kind")
    assert dict(a.env) == {"A": "default", "B": "kind", "C": "group", "D": "own"}
    assert (a.args, b.args) == (("group",), ())
    assert (a.commands, b.commands) == (("first", "second", "third"), ("first", "second"))
    assert notes == []


def test_anchors_and_merge_keys_are_followed(tmp_path: Path) -> None:
    found, _ = topology(
        tmp_path,
        "x-base: &base {kind: linux, image: alpine}\nname: lab\ntopology:\n  nodes:\n"
        "    a: *base\n    b: {<<: *base, image: busybox}\n",
    )
    assert [node.image for node in found.nodes] == ["alpine", "busybox"]


@pytest.mark.parametrize(
    ("link", "wanted"),
    [
        ('endpoints: ["a:eth1", "b:eth2"]', "a:eth1: b:eth2:"),
        (
            '{endpoints: ["a:eth1", "b:eth2"], ipv4: ["10.0.0.1/30", "10.0.0.2/30"]}',
            "a:eth1:10.0.0.1/30 b:eth2:10.0.0.2/30",
        ),
        (
            (
                "{type: veth, endpoints: [{node: a, interface: eth1, ipv6: '2001:db8::1/64'},"
                " {node: b, interface: eth2}]}"
            ),
            "a:eth1:2001:db8::1/64 b:eth2:",
        ),
    ],
)
def test_links_in_every_form(tmp_path: Path, link: str, wanted: str) -> None:
    found, notes = topology(tmp_path, TWO.format(link=link))
    assert links(found) == [wanted]
    assert notes == []


@pytest.mark.parametrize(
    ("link", "wanted"),
    [
        ('endpoints: ["a:eth1", "c:eth1"]', "a link ends at 'c', which is no node"),
        ('endpoints: ["a:eth1"]', "a list of two"),
        ('endpoints: ["a:eth1", "b"]', "endpoint 'b'; write NODE:INTERFACE"),
        ('endpoints: ["a:eth1", "a:eth2"]', "both ends are at 'a'"),
        ('endpoints: ["a:eth0", "b:eth1"]', "interface 'eth0' of a: is not free"),
        ('endpoints: ["a:{{ .x }}", "b:eth1"]', "is a template"),
        ("{type: vethh, endpoints: []}", "link type 'vethh' is not known; write type: veth"),
        ("{type: macvlan, endpoint: {node: a, interface: eth1}}", "endpoint and host-interface"),
        ("{type: host, host-interface: x}", "a link of type host needs endpoint"),
        (
            (
                "{type: macvlan, endpoint: {node: a, interface: eth1}, host-interface: eno1,"
                " mode: vepa}"
            ),
            "a macvlan in mode 'vepa'; write mode: bridge",
        ),
        (
            '{endpoints: ["a:eth1", "host:a/b"]}',
            "ratchet.device is 'a/b'; allowed is an interface name",
        ),
        (
            '{endpoints: ["a:eth1", "b:eth1"], labels: {ratchet.delay: 10}}',
            "ratchet.delay is '10'; allowed is a time from 1us to 60s with its unit",
        ),
        (
            '{endpoints: ["a:eth1", "b:eth1"], labels: {ratchet.dealy: 1ms}}',
            "a link has no label 'ratchet.dealy'",
        ),
        (
            (
                "{type: veth, endpoints: [{node: a, interface: eth1, mac: '01:00:00:00:00:01'},"
                " {node: b, interface: eth2}]}"
            ),
            "ratchet.local_mac is '01:00:00:00:00:01'",
        ),
        ("{type: dummy, endpoint: {node: a, interface: eth1}}", "a link of type dummy"),
        ("{type: mgmt-net, endpoint: {node: a, interface: eth1}}", "a link of type mgmt-net"),
        ("{type: vxlan, endpoint: {node: a, interface: eth1}}", "a link of type vxlan"),
        ("{type: bridge, endpoints: []}", "a link of type bridge"),
        ('endpoints: ["a:eth1", "dummy:veth1"]', "an interface without a cable"),
        (
            '{endpoints: ["a:eth1", "b:eth1"], ipv4: ["10.0.0.0/24", "10.0.0.2/24"]}',
            "address '10.0.0.0/24' of a: allowed is the address of a host in 10.0.0.0/24",
        ),
        ('{endpionts: ["a:eth1", "b:eth1"]}', "a link needs endpoints"),
        ('{endpoints: ["a:eth1", "b:eth1"], mtuu: 9}', "'mtuu' is not a key; probably mtu"),
    ],
)
def test_what_a_link_says_wrong_is_told_with_its_line(
    tmp_path: Path, link: str, wanted: str
) -> None:
    (line,) = errors(tmp_path, TWO.format(link=link))
    assert line.startswith("lab.clab.yml:7: ")
    assert wanted in line


def test_what_ratchet_cannot_do_is_left_out_on_request(tmp_path: Path) -> None:
    text = TWO.format(link="{type: vxlan, endpoint: {node: a, interface: eth1}}")
    found, notes = topology(tmp_path, text, leave_out=True)
    assert found.links == ()
    assert "lab.clab.yml:7: left out: a link of type vxlan" in notes[0]


@pytest.mark.parametrize(
    "link",
    [
        "{type: macvlan, endpoint: {node: a, interface: eth1}, host-interface: eno1, mtu: 1400}",
        "{type: macvlan, endpoint: 'a:eth1', host-interface: eno1, mode: bridge, mtu: 1400}",
        "{endpoints: ['a:eth1', 'macvlan:eno1'], mtu: 1400}",
        "{endpoints: ['macvlan:eno1', 'a:eth1'], mtu: 1400}",
    ],
)
def test_a_macvlan_in_every_form(tmp_path: Path, link: str) -> None:
    found, notes = topology(tmp_path, TWO.format(link=link))
    assert found.uplinks == (Uplink(End("a", "eth1"), "macvlan", "eno1", mtu=1400),)
    assert (found.links, notes) == ((), [])


def test_a_host_link_with_all_that_it_can_have(tmp_path: Path) -> None:
    link = (
        "{type: host, endpoint: {node: a, interface: eth1, mac: '02:00:00:00:00:01',"
        " ipv4: 10.0.0.2/30}, host-interface: to-a,"
        " labels: {ratchet.pair_ip: 10.0.0.1/30, ratchet.rate: 1mbit}}"
    )
    found, _ = topology(tmp_path, TWO.format(link=link))
    address, far = map(ipaddress.ip_interface, ("10.0.0.2/30", "10.0.0.1/30"))
    end = End("a", "eth1", address, "02:00:00:00:00:01", Impairment(rate_bits=1_000_000))
    assert found.uplinks == (Uplink(end, "host", "to-a", far),)


def test_the_ends_of_a_link_may_differ(tmp_path: Path) -> None:
    link = '{endpoints: ["a:eth1", "b:eth2"], labels: {ratchet.loss: 1, ratchet.pair_delay: 5ms}}'
    (found,) = topology(tmp_path, TWO.format(link=link))[0].links
    assert found.first.impairment == Impairment(loss_ppm=10_000)
    assert found.second.impairment == Impairment(loss_ppm=10_000, delay_us=5_000)


def test_nodes_that_are_no_pods_take_their_links_with_them(tmp_path: Path) -> None:
    text = """\
name: lab
topology:
  nodes:
    br1: {kind: bridge}
    a: {kind: linux, image: alpine}
  links:
    - endpoints: ["a:eth1", "br1:eth1"]
"""
    assert errors(tmp_path, text) == [
        (
            "lab.clab.yml:4: node br1 is a Linux bridge of the machine; make it a pod, for"
            " instance of kind linux, or leave it out with --leave-out"
        )
    ]
    found, notes = topology(tmp_path, text, leave_out=True)
    assert [node.name for node in found.nodes] == ["a"]
    assert found.links == ()
    assert any("lab.clab.yml:7: a link ends at br1, which is left out" in note for note in notes)


def test_every_mistake_is_told_at_once(tmp_path: Path) -> None:
    found = errors(
        tmp_path,
        "topology:\n  nodes:\n    a: {kind: linux, imag: x}\n    a_b: {kind: foo}\n"
        "    a-b: {image: y}\n",
    )
    assert [line.partition(": ")[0] for line in found] == [
        "lab.clab.yml:1",
        "lab.clab.yml:3",
        "lab.clab.yml:4",
        "lab.clab.yml:5",
    ]
    assert "name is missing" in found[0]
    assert "'imag' is not a key; probably image is meant" in found[1]
    assert "no image, and there is none for the kind foo" in found[2]
    assert "would both be the pod a-b" in found[3]


@pytest.mark.parametrize("bad", [2, 4_999, 9_998])
def test_a_mistake_in_ten_thousand_lines_names_its_line(tmp_path: Path, bad: int) -> None:
    count = 10_000
    lines = ["name: big", "topology:", "  kinds: {linux: {image: alpine}}", "  nodes:"]
    lines += [f"    n{number}: {{kind: linux}}" for number in range(count)]
    lines.append("  links:")
    start = len(lines) + 1
    for number in range(count - 1):
        far = "eth/0/{{x}}" if number == bad else "eth2"
        lines.append(f'    - endpoints: ["n{number}:eth1", "n{number + 1}:{far}"]')
    (line,) = errors(tmp_path, "\n".join(lines))
    assert line.startswith(f"lab.clab.yml:{start + bad}: interface 'eth/0/{{{{x}}}}'")


def test_interface_names_of_vendors_become_the_kernels_and_are_remembered(tmp_path: Path) -> None:
    found, _ = topology(
        tmp_path,
        """\
name: lab
topology:
  nodes:
    srl: {kind: nokia_srlinux}
    ceos: {kind: arista_ceos, image: ceos}
    any: {kind: linux, image: alpine}
  links:
    - endpoints: ["srl:ethernet-1/1", "ceos:Ethernet1/1"]
    - endpoints: ["srl:e1-2", "any:GigabitEthernet0/0/0"]
""",
    )
    assert links(found) == ["srl:e1-1: ceos:eth1_1:", "srl:e1-2: any:gi0-0-0:"]
    assert [node.renamed for node in found.nodes] == [
        (("e1-1", "ethernet-1/1"),),
        (("eth1_1", "Ethernet1/1"),),
        (("gi0-0-0", "GigabitEthernet0/0/0"),),
    ]


def test_two_names_of_one_interface_are_told(tmp_path: Path) -> None:
    text = TWO.format(link='endpoints: ["a:Ethernet1/1", "b:eth1"]')
    text += '    - endpoints: ["a:eth1-1", "b:eth2"]\n'
    (line,) = errors(tmp_path, text)
    assert line.startswith(
        "lab.clab.yml:8: interface eth1-1 of a is used twice, as 'Ethernet1/1' already (first in"
        " line 7)"
    )


def test_files_beside_the_topology_come_along(tmp_path: Path) -> None:
    (tmp_path / "frr.conf").write_text("hostname r1\n")
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "daemons").write_text("bgpd=yes\n")
    found, _ = topology(
        tmp_path,
        """\
name: lab
topology:
  nodes:
    r1:
      kind: frr
      startup-config: frr.conf
      binds: ["configs:/etc/more:ro", "frr.conf:/copies/__clabNodeName__.conf"]
    r2:
      kind: frr
      startup-config: |
        hostname r2
""",
    )
    assert found.nodes[0].files == (
        File("/etc/more/daemons", "bgpd=yes\n"),
        File("/copies/r1.conf", "hostname r1\n"),
        File("/etc/frr/frr.conf", "hostname r1\n"),
    )
    assert found.nodes[1].files == (File("/etc/frr/frr.conf", "hostname r2\n"),)


def test_files_that_cannot_be_had_are_told(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    found = errors(
        tmp_path,
        """\
name: lab
topology:
  nodes:
    a:
      kind: frr
      startup-config: nowhere
      binds:
        - /etc/hosts:/etc/hosts
        - binary:/x
        - nothing
    b: {kind: linux, startup-config: nowhere}
    c: {kind: frr, startup-config: "https://example.org/frr.conf"}
""",
    )
    assert "lab.clab.yml:6: nowhere: No such file or directory" in found[0]
    assert (
        "lab.clab.yml:8: bind '/etc/hosts:/etc/hosts': /etc/hosts lies on the machine" in (found[1])
    )
    assert "lab.clab.yml:9: binary is not text" in found[2]
    assert "lab.clab.yml:10: bind 'nothing'; write FILE:/PATH/IN/CONTAINER" in found[3]
    assert "lab.clab.yml:11: node b: where the kind linux reads its startup" in found[4]
    assert "lab.clab.yml:12: 'https://example.org/frr.conf' is not fetched" in found[5]


def test_ports_and_labels(tmp_path: Path) -> None:
    found, notes = topology(
        tmp_path,
        """\
name: lab
topology:
  nodes:
    a:
      image: alpine
      ports: ["8080:80", "30053:53/udp", "443"]
      labels:
        role: spine
        "graph icon": router
        topo.ratchet/node-selector.zone: left
""",
    )
    (node,) = found.nodes
    assert node.ports == (Port(80, 8080), Port(53, 30053, "UDP"), Port(443))
    assert node.labels == (("role", "spine"),)
    assert node.node_selector == (("zone", "left"),)
    assert "the label 'graph icon: router' is left out" in notes[0]


def test_commands_that_set_loopback_addresses_are_taken_for_what_they_are(tmp_path: Path) -> None:
    found, _ = topology(
        tmp_path,
        "name: lab\ntopology:\n  nodes:\n    a:\n      image: alpine\n"
        "      exec: ['ip addr add 10.1.1.1/32 dev lo', 'ip addr add 10.2.2.2/24 dev eth1']\n",
    )
    assert [str(one) for one in found.nodes[0].loopbacks] == ["10.1.1.1/32"]
    assert found.nodes[0].commands == ("ip addr add 10.2.2.2/24 dev eth1",)


def test_variables_are_filled_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAG", "3.20")
    monkeypatch.delenv("NOTHING", raising=False)
    text = "name: lab\ntopology:\n  nodes:\n    a: {{image: 'alpine:{}'}}\n"
    images = [
        topology(tmp_path, text.format(one))[0].nodes[0].image
        for one in ("${TAG}", "${NOTHING:-latest}", "${NOTHING:=edge}")
    ]
    assert images == ["alpine:3.20", "alpine:latest", "alpine:edge"]
    (line,) = errors(tmp_path, text.format("${NOTHING}"))
    assert line.startswith("lab.clab.yml:4: the environment has no variable NOTHING")


def test_what_is_left_alone_says_why(tmp_path: Path) -> None:
    _, notes = topology(
        tmp_path,
        "name: lab\ndebug: true\ntopology:\n  nodes:\n    a:\n      image: alpine\n"
        "      license: key\n      unheard: of\n",
    )
    assert notes == [
        "lab.clab.yml:7: node a: license is left out: put the licence into the image or bind it",
        "lab.clab.yml:8: node a: 'unheard' is left out: Ratchet does not know it",
        "lab.clab.yml:2: the file: debug is left out: it is containerlab's own",
    ]
