"""What the check finds, each with its line, and what diff finds between two files."""

from __future__ import annotations

from pathlib import Path

import pytest

from ratchetctl.topo import check, diff
from ratchetctl.topo.findings import Findings
from tests.unit.ratchetctl.topo.reading import topology

TEXT = """\
name: lab
topology:
  kinds: {{linux: {{image: alpine}}}}
  nodes: {{a: {{}}, b: {{}}, c: {{}}, d: {{}}}}
  links:
    - endpoints: ["a:eth1", "b:eth1"]
      ipv4: ["10.0.0.1/24", "{b}"]
      mtu: {mtu}
    - endpoints: ["b:eth2", "c:eth1"]
      ipv4: ["10.0.1.1/24", "{c}"]
"""
WELL = {"b": "10.0.0.2/24", "c": "10.0.1.2/24", "mtu": "1400"}


def found(folder: Path, **values: str) -> tuple[list[str], list[str]]:
    findings = Findings()
    made, _ = topology(folder, TEXT.format(**{**WELL, **values}))
    check.check(made, findings)

    def shown(what: list[object]) -> list[str]:
        return [str(one).replace(f"{folder}/", "") for one in what]

    return shown([*findings.errors]), shown([*findings.notes])


LONELY = "lab.clab.yml:4: d cannot be reached from a; add a link, unless this is meant"


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        (
            {"b": "10.0.9.2/24"},
            "lab.clab.yml:6: the ends' networks differ: a eth1 has 10.0.0.1/24,",
        ),
        ({"b": "10.0.0.2/25"}, "lab.clab.yml:6: the ends' networks differ"),
        ({"c": "10.0.1.1/24"}, "lab.clab.yml:9: address 10.0.1.1 of c eth1 is that of b eth2"),
        ({"mtu": "60"}, "lab.clab.yml:6: an MTU of 60; use 68 to 65535"),
        ({"mtu": "70000"}, "lab.clab.yml:6: an MTU of 70000; use 68 to 65535"),
    ],
)
def test_errors(tmp_path: Path, values: dict[str, str], wanted: str) -> None:
    errors, notes = found(tmp_path, **values)
    assert len(errors) == 1
    assert errors[0].startswith(wanted)
    assert notes == [LONELY]


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ({"mtu": "9000"}, "lab.clab.yml:6: an MTU of 9000 does not fit between two machines"),
        ({"c": ""}, "lab.clab.yml:9: c eth1 has no address, the other end has"),
    ],
)
def test_warnings(tmp_path: Path, values: dict[str, str], wanted: str) -> None:
    errors, notes = found(tmp_path, **values)
    assert errors == []
    assert notes[0].startswith(wanted)
    assert notes[1:] == [LONELY]


def test_two_nodes_on_one_port_of_the_machines(tmp_path: Path) -> None:
    findings = Findings()
    made, _ = topology(
        tmp_path,
        "name: lab\ntopology:\n  nodes:\n    a: {image: x, ports: ['30001:1']}\n"
        "    b: {image: x, ports: ['30001:2']}\n",
    )
    check.check(made, findings)
    assert "5: port 30001 of b is published for a already" in str(findings.errors[0])


def test_more_files_than_a_config_map_holds(tmp_path: Path) -> None:
    for name in "xy":
        (tmp_path / name).write_text("z" * 600_000)
    findings = Findings()
    made, _ = topology(
        tmp_path,
        "name: lab\ntopology:\n  nodes:\n    a: {image: x, binds: ['x:/x', 'y:/y']}\n",
    )
    check.check(made, findings)
    assert ":4: the files of a have 1200000 bytes" in str(findings.errors[0])


def test_diff_tells_what_is_new_gone_and_changed(tmp_path: Path) -> None:
    old, _ = topology(tmp_path, TEXT.format(**WELL))
    text = TEXT.format(**{**WELL, "c": "10.0.1.9/24"})
    text = text.replace("d: {}", "e: {}").replace("b: {}", "b: {image: other}")
    text = text.replace('["a:eth1", "b:eth1"]', '["b:eth1", "a:eth1"]').replace(
        '["10.0.0.1/24", "10.0.0.2/24"]', '["10.0.0.2/24", "10.0.0.1/24"]'
    )
    new, _ = topology(tmp_path, text)
    assert diff.diff(old, new).lines() == [
        "- link b eth2 10.0.1.1/24 -- c eth1 10.0.1.2/24",
        "- node d",
        "+ node e",
        "~ node b: image",
        "+ link b eth2 10.0.1.1/24 -- c eth1 10.0.1.9/24",
    ]
    assert not diff.diff(old, old)
