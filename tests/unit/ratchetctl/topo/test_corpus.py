"""Facts of public topologies: each is taken, its names mapped, or refused with the reason.

What is taken comes back whole: rendered and read again, written as a definition and read again.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from ratchetctl.errors import TopologyError
from ratchetctl.topo import check, dump, kinds, read, render, write
from ratchetctl.topo.findings import Findings
from ratchetctl.topo.model import Topology

TESTS = Path(__file__).parents[3]
CORPUS = TESTS / "corpus"
EXAMPLES = TESTS.parent / "examples" / "topologies"
VERSION = "1.31"  # of Kubernetes
POSITION = re.compile(r"\S+:\d+: .+(?:; |allowed is ).+")  # file, line, what, remedy


@dataclass(frozen=True)
class Case:
    name: str
    text: str
    suffix: str
    files: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    shown: tuple[str, ...] = ()  # what a link shows


def _yaml_cases(file: str, suffix: str) -> list[Case]:
    found = []
    for text in (CORPUS / file).read_text().split("\n---\n")[1:]:
        facts: dict[str, Any] = yaml.safe_load(text)["x-facts"]
        lists = {
            "files": facts.get("files", ()),
            "refused": facts.get("refused", ()),
            "shown": facts.get("links", ()),
        }
        found.append(
            Case(
                f"{file.partition('.')[0]}/{facts['from']}",
                text,
                suffix,
                **{key: tuple(value) for key, value in lists.items()},
            )
        )
    return found


def _kne_cases() -> list[Case]:
    found = []
    for text in (CORPUS / "kne.pb.txt").read_text().split("\n--- ")[1:]:
        head, _, body = text.partition("\n")
        left, _, refused = head.partition(" | ")
        name, *files = left.split()
        found.append(
            Case(f"kne/{name}", body, ".pb.txt", tuple(files), (refused,) if refused else ())
        )
    return found


CASES = [
    *_yaml_cases("containerlab.yml", ".clab.yml"),
    *_yaml_cases("k8s-topo.yml", ".yml"),
    *_yaml_cases("meshnet.yml", ".yml"),
    *_kne_cases(),
]


def lay(case: Case, folder: Path) -> str:
    """Write the file and those that lie beside it."""
    for name in case.files:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("some text\nof two lines\n")
    path = folder / f"lab{case.suffix}"
    path.write_text(case.text)
    return str(path)


def rendered(topology: Topology) -> str:
    return "".join(dump.documents(render.objects(topology)))


def again(path: Path, text: str) -> Topology:
    path.write_text(text)
    return read.read(str(path), Findings())


def returns(topology: Topology, folder: Path) -> None:
    """Assert that a topology comes back from what is written of it."""
    first = rendered(topology)
    assert rendered(again(folder / "rendered.yml", first)) == first
    for node, file in write.needs_files(topology):
        path = folder / write.bind_path("kept", node, file)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(file.content)
    definition = "".join(write.definition(topology, files="kept"))
    assert rendered(again(folder / "written.clab.yml", definition)) == first


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_public_topology_is_taken_or_refused_with_the_reason(case: Case, tmp_path: Path) -> None:
    path = lay(case, tmp_path)
    findings = Findings()
    try:
        topology = read.read(path, findings)
        check.check(topology, findings)
        findings.raise_errors()
    except TopologyError as error:
        assert case.refused, error
        for reason in case.refused:
            assert reason in str(error)
        assert all(map(POSITION.match, str(error).splitlines())), error
        return
    assert not case.refused
    links = [
        " ".join(f"{one.node} {one.address}" for one in link.ends) for link in topology.all_links
    ]
    for shown in case.shown:
        assert any(shown in link for link in links), links
    # Every name that was changed is shown as its file has it.
    for node in topology.nodes:
        for _, title in node.renamed:
            assert title in case.text
    returns(topology, tmp_path)
    is_kubernetes(topology)


def is_kubernetes(topology: Topology) -> None:
    """Assert that what is rendered is what Kubernetes' published schemas ask for."""
    for one in render.objects(topology, "lab"):
        kubernetes_validate.validate(json.loads(json.dumps(one)), VERSION, strict=True)


def test_a_rendered_object_can_be_wrong(tmp_path: Path) -> None:
    topology = read.read(lay(CASES[0], tmp_path), Findings())
    pod: dict[str, Any] = json.loads(json.dumps(next(iter(render.objects(topology)))))
    pod["spec"]["containers"][0]["imag"] = "x"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(pod, VERSION, strict=True)


@pytest.mark.parametrize(
    "name",
    sorted(
        one.name
        for one in EXAMPLES.iterdir()
        if one.name.endswith((".yml", ".pb.txt", ".graphml")) and one.name != "kinds.yml"
    ),
)
def test_an_example_comes_back_whole(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kinds, "KINDS", dict(kinds.KINDS))
    kinds.extend(str(EXAMPLES / "kinds.yml"))
    topology = read.read(str(EXAMPLES / name), Findings())
    returns(topology, tmp_path)
    is_kubernetes(topology)


@pytest.mark.parametrize("case", [one for one in CASES if one.refused], ids=lambda case: case.name)
def test_what_cannot_be_done_can_be_left_out_unless_it_is_a_mistake(
    case: Case, tmp_path: Path
) -> None:
    """--leave-out takes the rest; what is left out is told."""
    findings = Findings(leave_out=True)
    try:
        read.read(lay(case, tmp_path), findings)
    except TopologyError as error:
        assert "--leave-out" not in str(error)
    else:
        assert findings.notes


MISTAKES = {
    77: ('      ipv4: ["10.0.300.1/24", ""]', "address '10.0.300.1/24' of r77"),
    177: ("      lables: {a: b}", "'lables' is not a key; probably labels is meant"),
    277: ('    - endpoints: ["r1:eth9", "r9999:eth1"]', "a link ends at 'r9999', which is no node"),
    1277: ("    - endpoints: [r1:eth8]", "a link needs endpoints, a list of two"),
    2477: ('    - {endpoints: ["r1:eth7", "r2:eth7"], mtu: many}', "mtu must be a number"),
}


def test_mistakes_in_ten_thousand_lines_are_named_with_their_lines(tmp_path: Path) -> None:
    lines = ["name: long", "topology:", "  kinds: {linux: {image: alpine}}", "  nodes:"]
    lines += [f"    r{number}: {{}}" for number in range(1, 2501)]
    lines += ["  links:"]
    wanted = []
    for number in range(1, 2500):
        lines.append(f'    - endpoints: ["r{number}:eth2", "r{number + 1}:eth1"]')
        if number in MISTAKES:
            mistake, said = MISTAKES[number]
            lines.append(mistake)
            wanted.append((len(lines), said))
        else:
            lines += ["      mtu: 1400", "      labels: {ratchet.delay: 1ms}"]
    lines += ["# the end"] * (10_000 - len(lines))
    path = tmp_path / "long.clab.yml"
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(TopologyError) as caught:
        read.read(str(path), Findings())
    found = str(caught.value).splitlines()
    assert len(found) == len(wanted)
    for line, (number, said) in zip(found, wanted, strict=True):
        assert line.startswith(f"{path}:{number}: ")
        assert said in line


def test_the_counts_in_the_documentation_are_those_of_the_corpus() -> None:
    text = (TESTS.parent / "docs" / "topologies.md").read_text()
    for form in ("containerlab", "k8s-topo", "meshnet", "kne"):
        cases = [case for case in CASES if case.name.startswith(f"{form}/")]
        refused = sum(bool(case.refused) for case in cases)
        row = f"| {form} | {len(cases)} | {len(cases) - refused} | {refused} |"
        assert row in text, row


def test_names_of_positions_are_no_part_of_a_topology(tmp_path: Path) -> None:
    """A topology that is read from another file is the same one."""
    case = CASES[0]
    one = read.read(lay(case, tmp_path), Findings())
    assert replace(one, where=one.where) == one
