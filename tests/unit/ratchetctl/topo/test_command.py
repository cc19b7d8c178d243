"""`ratchetctl topo`: what is printed, where files go, the exit status."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from ratchetctl.cli import cli
from ratchetctl.errors import OperatorError, SimError, TopologyError
from ratchetctl.topo import kinds

LAB = """\
name: lab
topology:
  nodes:
    A: {image: x, binds: ["motd:/etc/motd"]}
    b: {image: x}
  links:
    - endpoints: ["A:Ethernet1/1", "b:eth1"]
"""


@pytest.fixture
def lab(tmp_path: Path) -> str:
    (tmp_path / "motd").write_text("hello\n")
    path = tmp_path / "lab.clab.yml"
    path.write_text(LAB)
    return str(path)


def topo(*arguments: str, status: int = 0) -> Result:
    done = CliRunner().invoke(cli, ["topo", *arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == status, done.output
    return done


def test_show_has_the_mapping_and_notes_have_it_with_its_line(lab: str) -> None:
    done = topo("show", lab)
    assert "a (A)" in done.stdout
    assert "eth1-1 (Ethernet1/1)" in done.stdout
    assert f"note: {lab}:4: interface Ethernet1/1 of A becomes eth1-1" in done.stderr


def test_import_writes_the_files_beside_the_definition(lab: str, tmp_path: Path) -> None:
    with pytest.raises(TopologyError, match="/etc/motd of a; write to a file with -o"):
        topo("import", lab)
    out = tmp_path / "out"
    out.mkdir()
    topo("import", lab, "-o", str(out / "new.clab.yml"))
    assert (out / "new-files" / "a" / "etc_motd").read_text() == "hello\n"
    before, after = topo("render", lab).stdout, topo("render", str(out / "new.clab.yml")).stdout
    assert before == after


def test_render_into_a_namespace(lab: str) -> None:
    found = list(yaml.safe_load_all(topo("render", lab, "-n", "net").stdout))
    assert [(one["kind"], one["metadata"]["namespace"]) for one in found] == [
        ("ConfigMap", "net"),
        ("Pod", "net"),
        ("Pod", "net"),
    ]


def test_addresses_on_request(lab: str) -> None:
    assert "10." not in topo("show", lab).stdout
    done = topo("show", lab, "--addresses", "ipv4", "--prefix-len", "30", "--pool", "192.0.2.0/24")
    assert "192.0.2.1/30" in done.stdout
    with pytest.raises(TopologyError, match="must be a network of IPv6"):
        topo("show", lab, "--addresses", "ipv6", "--pool", "192.0.2.0/24")


def test_diff_says_so_by_its_exit_status(lab: str, tmp_path: Path) -> None:
    assert topo("diff", lab, lab).stdout == ""
    other = tmp_path / "other.clab.yml"
    other.write_text(LAB.replace("b: {image: x}", "b: {image: y}"))
    assert topo("diff", lab, str(other), status=3).stdout == "~ node b: image\n"
    assert (
        "--sim is for a running topology only" in topo("diff", lab, lab, "--sim", status=2).stderr
    )


def test_graph(lab: str) -> None:
    done = topo("graph", lab)
    assert '  "a" -- "b" [taillabel="eth1-1", headlabel="eth1"];' in done.stdout
    assert '  n1["A"]' in topo("graph", lab, "-t", "mermaid").stdout


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("net.html", "<!doctype html>"),
        ("net.svg", "<svg "),
        ("net.drawio", "<?xml"),
        ("net.dot", "graph "),
        ("net.GV", "graph "),
        ("net.mmd", "graph LR"),
    ],
)
def test_graph_takes_the_format_from_the_files_name(
    lab: str, tmp_path: Path, name: str, start: str
) -> None:
    path = tmp_path / name
    topo("graph", lab, "-o", str(path))
    assert path.read_text().startswith(start)
    other = tmp_path / "other"
    topo("graph", lab, "-t", "svg", "-o", str(other))
    assert other.read_text().startswith("<svg ")


def test_graph_says_what_it_cannot_tell(lab: str, tmp_path: Path) -> None:
    path = tmp_path / "net.png"
    said = topo("graph", lab, "-o", str(path), status=2).stderr
    assert "the name does not tell the format; let it end with .html" in said
    assert not path.exists()
    said = topo("graph", lab, "--serve", "-t", "svg", status=2).stderr
    assert "--serve serves the page itself" in said


def test_graph_of_what_does_not_run_is_refused(
    lab: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RATCHET_SIM_DIR", str(tmp_path))
    with pytest.raises(SimError, match="no simulation 'default' is running"):
        topo("graph", lab, "--sim", "-t", "html")


@pytest.mark.parametrize("command", ["create", "apply", "destroy", "diff"])
def test_without_a_cluster_the_simulator_is_named(
    lab: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", "/nonexistent")
    with pytest.raises(OperatorError, match="or give --sim for the simulator"):
        topo(command, lab)


def test_a_format_may_be_named(lab: str) -> None:
    with pytest.raises(TopologyError):
        topo("show", lab, "--format", "kne")


def test_a_seed_is_written_into_the_file() -> None:
    first = topo("random", "10", "2").stdout
    command = first.splitlines()[0].removeprefix("# ratchetctl topo ").split()
    assert topo(*command).stdout == first


def test_names_of_drawn_nodes_are_pods_names() -> None:
    assert "    sw-1: {kind: linux}\n" in topo("ring", "3", "--prefix", "sw-").stdout
    assert "--prefix 'R_'" in topo("ring", "3", "--prefix", "R_", status=2).stderr


def test_a_drawn_fabric_has_routers_without_link_addresses_and_hosts_with_routes() -> None:
    found = yaml.safe_load(topo("clos", "1", "2", "1", "--routing", "bgp").stdout)["topology"]
    leaf, host = found["nodes"]["leaf1"], found["nodes"]["host1"]
    assert "neighbor eth1 interface remote-as external" in leaf["startup-config"]
    assert "network 10.0.0.0/31" in leaf["startup-config"]
    assert host["kind"] == "linux"
    assert host["exec"] == [
        "ip route replace 10.0.0.0/9 via 10.0.0.1",
        "ip route replace 10.128.0.0/12 via 10.0.0.1",
    ]
    addressed = [one for one in found["links"] if "ipv4" in one]
    assert all("host" in str(one) for one in addressed)
    assert len(addressed) == 2


def test_an_unknown_kind_is_refused_with_those_there_are() -> None:
    assert "the kinds are arista_ceos" in topo("ring", "3", "--kind", "cisco", status=2).output


def test_kinds_lists_a_persons_own(tmp_path: Path) -> None:
    own = tmp_path / "kinds.yml"
    own.write_text("acme: {image: acme/switch, wait: true}\n")
    shown = topo("kinds", "--kinds", str(own)).stdout
    assert "acme/switch" in shown
    assert "nokia_srlinux" in shown
    kinds.KINDS.pop("acme")
