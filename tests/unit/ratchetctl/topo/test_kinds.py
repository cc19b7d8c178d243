"""The table of device kinds, and a person's own beside it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from ratchetctl.errors import TopologyError
from ratchetctl.topo import dump, kinds, names, render
from ratchetctl.topo.model import End, Link, Node, Topology
from ratchetctl.topo.renaming import Renaming
from tests.lab.simulation import ROOT

EXAMPLE = Path(ROOT, "examples", "topologies", "kinds.yml")


@pytest.fixture(autouse=True)
def table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinds, "KINDS", dict(kinds.KINDS))


def test_a_file_adds_kinds_and_says_more_of_known_ones() -> None:
    before = kinds.kind("nokia_srlinux")
    kinds.extend(str(EXAMPLE))
    assert names.interface("acme_switch", "ge-2/3") == "eth36"
    assert names.interface("acme_switch", "port-7") == "eth7"
    acme = kinds.kind("acme_switch")
    assert acme.command == ("/usr/bin/acme", "--ports", "from-kernel")
    assert (acme.waits, acme.is_image) == (True, True)
    after = kinds.kind("nokia_srlinux")
    assert after.image != before.image
    assert (after.renames, after.config_path) == (before.renames, before.config_path)


def test_a_kind_is_like_another_but_for_what_it_says() -> None:
    made = kinds.parse("x.yml", "mine: {like: frr, image: own/frr}", kinds.KINDS)["mine"]
    assert (made.image, made.router, made.config_path) == ("own/frr", "frr", "/etc/frr/frr.conf")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: {imge: x}", "x.yml:1: kind a: 'imge' is not a key; allowed are"),
        ("\na: {like: b}", "x.yml:2: there is no kind 'b'"),
        ("a: {router: cisco}", "router 'cisco': allowed is frr, bird, gobgp"),
        ("a: {config: frr.conf}", "must be a path from /"),
        ("a: {router: frr}", "a router needs config"),
        ("a: {wait: maybe}", "wait must be true or false"),
        ("a: {interfaces: [{name: '(', becomes: x}]}", "is no pattern"),
        ("a: {interfaces: [{name: 'a', becomes: 'e{$1}'}]}", r"$1: the pattern has 0 groups"),
        ("a: {interfaces: [{name: 'a(.)', becomes: 'e{1*}'}]}", "no sum of groups"),
        ("a: {interfaces: [{name: 'a(.)', becomes: 'e{$1'}]}", "without its partner"),
        ("a: {interfaces: [{name: 'a'}]}", "write {name: PATTERN, becomes: NAME}"),
        ("[a]", "must be one mapping"),
    ],
)
def test_a_mistake_is_told_with_its_line(text: str, said: str) -> None:
    with pytest.raises(TopologyError) as caught:
        kinds.parse("x.yml", text, kinds.KINDS)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("pattern", "becomes", "title", "wanted"),
    [
        (r"et(\d+)(?:/(\d+))?", "eth{$1}[_{$2}]", "ET1/2", "eth1_2"),
        (r"et(\d+)(?:/(\d+))?", "eth{$1}[_{$2}]", "et1", "eth1"),
        (r"e(\d+)/(\d+)", "eth{4*$1+$2+1}", "e2/3", "eth12"),
        (r"gi(\d+)", "eth{$1-1}", "gi3", "eth2"),
        (r"gi(\d+)", "eth{$1-1}", "gi0", None),
        (r"gi(\d+)", "eth{$1-1}", "gi3/1", None),
        (r"x(.)", "eth{$1+1}", "xy", None),
    ],
)
def test_interfaces_are_renamed_by_rules(
    pattern: str, becomes: str, title: str, wanted: str | None
) -> None:
    assert Renaming.parse(pattern, becomes).apply(title) == wanted


def test_a_kind_that_looks_once_starts_when_its_interfaces_are_there() -> None:
    nodes = (Node("a", "a", "ceos", "ceos"), Node("b", "b", "linux", "alpine"))
    found = Topology("lab", nodes, (Link(End("a", "eth1"), End("b", "eth1")),))
    pods = yaml.safe_load_all("".join(dump.documents(render.objects(found))))
    first, second = (one["spec"] for one in pods if one["kind"] == "Pod")
    (init,) = first["initContainers"]
    assert init["name"] == render.LINKS
    assert "/proc/sys/net/ipv4/conf/eth1" in init["command"][-1]
    assert "initContainers" not in second


def test_the_example_is_plain_yaml() -> None:
    assert set(yaml.safe_load(EXAMPLE.read_text())) == {"acme_switch", "nokia_srlinux"}
