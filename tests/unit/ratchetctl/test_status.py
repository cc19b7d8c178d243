"""`ratchetctl status`: whose status, what of an answer is taken, and how it is said."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from ratchet import client, messages
from ratchet.attachments import Attachment, Directory
from ratchet.config import Config
from ratchet.errors import ChildError
from ratchet.links import Link
from ratchetctl import node as node_module
from ratchetctl.errors import OperatorError
from ratchetctl.status import status

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(__file__))))


def link(**changes: Any) -> dict[str, Any]:
    return {
        "ifname": "in1",
        "address": "192.168.2.100/24",
        "peer": "b",
        "peer_ifname": "in2",
        "peer_address": "192.168.2.101/24",
        "peer_node": "10.0.0.2",
        "silent_since": None,
        "primary": True,
        "vni": 11,
        "kind": "vxlan",
        "state": "up",
        "since": 1000.0,
        "error": None,
        "fault": None,
        "by_pod": None,
        "last_error": None,
        "last_error_at": None,
        **changes,
    }


def pod(name: str = "a", *links: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "namespace": "default",
        "name": name,
        "kubernetes_name": f"{name}-0",
        "container": "c" * 64,
        "netns": "/run/netns/x",
        "attached_at": 1000.0,
        "superseded": False,
        "error": None,
        "last_error": None,
        "last_error_at": None,
        "links": list(links),
        **changes,
    }


def answer(*pods: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "ok": True,
        "node": "10.0.0.1",
        "parent_interface": "eth0",
        "trouble": None,
        "etcd": None,
        "etcd_away": False,
        "etcd_since": 1000.0,
        "pods": list(pods),
        **changes,
    }


class Child:
    """What `client.ask` gives; the requests that it got."""

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir
        self.answer: dict[str, Any] | ChildError | None = answer()
        self.asked: list[tuple[str, object]] = []

    def ask(
        self, config: Config, request: messages.Request, timeout_s: float
    ) -> dict[str, Any] | None:
        self.asked.append((config.state_dir, messages.request_to_json(request)["op"]))
        if isinstance(self.answer, ChildError):
            raise self.answer
        return self.answer

    def says(self, *pods: dict[str, Any], **changes: Any) -> None:
        self.answer = answer(*pods, **changes)

    def status(self, *arguments: str) -> Result:
        return CliRunner().invoke(status, ["--state-dir", str(self.state_dir), *arguments])

    def json(self, *arguments: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.status("-o", "json", *arguments).stdout)
        return found


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Child:
    state_dir = tmp_path / "state"
    (state_dir / "attachments").mkdir(parents=True)
    made = Child(state_dir)
    monkeypatch.setattr(client, "ask", made.ask)
    monkeypatch.setattr(node_module, "STATE_DIRS", str(tmp_path / "run"))
    monkeypatch.setattr(node_module, "CONFIGURATIONS", str(tmp_path / "net.d"))
    return made


def record(child: Child, name: str, *links: Link) -> None:
    Directory(str(child.state_dir)).write(
        Attachment(
            container_id=f"id-{name}",
            ifname="eth0",
            netns="/run/netns/x",
            network="n",
            namespace="default",
            pod=name,
            kubernetes_name=None,
            uid=None,
            links=links,
            public_ip=None,
            target_pod=None,
            target_container=None,
            attached_at=1000.0,
            boottime_s=1.0,
            boot=None,
            result={},
        )
    )


# How well


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (answer(), 0),
        (answer(pod("a", link())), 0),
        (answer(pod("a", link(), link(ifname="in3", state="waiting"))), 3),
        (answer(pod("a", link(state="error", error="no"), link(state="waiting"))), 4),
        (answer(pod("a", link(), error="etcd is not available")), 4),
        (answer(pod("a", superseded=True)), 4),
        (answer(pod("a", link()), etcd="refused", etcd_away=True), 4),
        (answer(etcd="not asked yet"), 3),
        (answer(pod("a", link(last_error="once", last_error_at=2000.0))), 0),
        (answer(pod("a", link(fault="mtu 9000: Invalid argument"))), 4),
    ],
)
def test_exit_status_says_how_well_the_node_is(
    child: Child, said: dict[str, Any], code: int
) -> None:
    child.answer = said
    assert child.status().exit_code == code
    assert child.status("-o", "json").exit_code == code


def test_exit_status_is_that_of_the_pod_that_was_asked_for(child: Child) -> None:
    child.says(pod("a", link()), pod("b", link(state="waiting")), pod("c", superseded=True))
    assert [child.status(name).exit_code for name in ("a", "b", "c")] == [0, 3, 4]


# What is shown


def test_every_pod_and_link_is_in_the_tables(child: Child) -> None:
    links = (link(), link(ifname="in3", kind=None, vni=None, peer_node=None, state="waiting"))
    child.says(pod("a", *links), pod("b", link(kind="veth")), etcd_since=0.0)
    text = child.status().stdout
    assert re.search(r"^node 10\.0\.0\.1 \(eth0\), etcd reachable for \d+ d$", text, re.MULTILINE)
    assert re.search(r"^default/a +c{12} +\d+ d +waiting +1 up, 1 waiting *$", text, re.MULTILINE)
    first, second = re.findall(r"^default/a .*in[13] .*$", text, re.MULTILINE)
    words = ["default/a", "in1", "192.168.2.100/24", "b", "in2", "10.0.0.2", "vxlan", "11", "up"]
    assert first.split()[:9] == words
    assert second.split()[5:8] == ["-", "-", "waiting"]
    assert re.search(r"^default/b +in1 .* veth +up", text, re.MULTILINE)


def test_calls_through_the_front_are_told_and_why_the_parent_served_others(child: Child) -> None:
    counts = {
        "calls": {"answered": 3, "delegated": 40, "abandoned": 1},
        "fallbacks": {"late": 2, "busy": 0, "no-child": 1},
    }
    child.says(front=counts)
    text = child.status().stdout
    assert "calls through the front: 43; through the parent" in text
    assert "as far as is known: 2 late, 1 no-child" in text
    assert child.json()["front"] == counts


def test_child_of_a_version_without_a_front_is_understood(child: Child) -> None:
    child.says()
    assert "front" not in child.status().stdout
    assert child.json()["front"] is None


@pytest.mark.parametrize("said", ["on", "off: nftables does not work on this node (x)"])
def test_how_it_stands_with_the_guard_is_shown(child: Child, said: str) -> None:
    child.says(guard=said)
    assert f"guard {said}\n" in child.status().stdout
    assert child.status().exit_code == 0
    assert child.json()["guard"] == said


def test_errors_are_shown_while_they_last_and_after(child: Child) -> None:
    child.says(
        pod(
            "a",
            link(state="error", error="now", last_error="now", last_error_at=9.0),
            link(ifname="in3", last_error="then", last_error_at=9.0),
            last_error="away",
            last_error_at=9.0,
        ),
        pod("b", superseded=True),
    )
    text = child.status().stdout
    assert "default/a in1: now\n" in text
    assert re.search(r"^default/a in3: \d+ d ago, over since: then$", text, re.MULTILINE)
    assert re.search(r"^default/a: \d+ d ago, over since: away$", text, re.MULTILINE)
    assert "default/b: superseded" in text


def test_fault_of_a_link_that_is_up_is_shown(child: Child) -> None:
    fault = "the kernel refuses mtu 9000: Invalid argument"
    child.says(pod("a", link(fault=fault), link(ifname="in3")))
    text = child.status().stdout
    assert re.search(r"^default/a +in1 .* up \(fault\) \d+ d *$", text, re.MULTILINE)
    assert re.search(r"^default/a +in3 .* up \d+ d *$", text, re.MULTILINE)
    assert "default/a in1: fault: the kernel refuses mtu 9000: Invalid argument\n" in text
    faults = [one["fault"] for one in child.json()["pods"][0]["links"]]
    assert faults == [fault, None]


def test_child_of_a_version_that_knows_no_faults_is_understood(child: Child) -> None:
    older = link()
    del older["fault"]
    child.says(pod("a", older))
    assert child.status().exit_code == 0
    assert child.json()["pods"][0]["links"][0]["fault"] is None


def test_why_labels_cannot_be_read_is_shown(child: Child) -> None:
    child.says(labels="refused: check RBAC")
    found = child.status()
    assert "pods' labels: refused: check RBAC" in found.stdout
    assert found.exit_code == 4
    assert json.loads(child.status("-o", "json").stdout)["labels"] == {
        "error": "refused: check RBAC"
    }


def test_why_etcd_is_away_is_shown(child: Child) -> None:
    child.says(etcd="refused", etcd_away=True)
    assert re.search(r"etcd is away for \d+ d: refused$", child.status().stdout, re.MULTILINE)


def test_a_link_whose_far_node_is_silent_is_not_plainly_up(child: Child) -> None:
    child.says(pod("a", link(silent_since=2000.0)))
    done = child.status()
    assert done.exit_code == 3
    assert re.search(r"up \d+ d, silent \d+ d$", done.stdout, re.MULTILINE)
    assert "default/a in1: the far node 10.0.0.2 has not been heard of for" in done.stdout
    assert child.json()["pods"][0]["links"][0]["silent_since"] == "1970-01-01T00:33:20Z"


def test_what_is_wrong_with_the_nodes_address_is_shown(child: Child) -> None:
    child.says(pod("a", link()), node="", trouble="there is no default route")
    done = child.status()
    assert done.exit_code == 4
    assert "this node's address: there is no default route" in done.stdout
    assert (child.json()["node"], child.json()["trouble"]) == (None, "there is no default route")


def test_node_without_pods_says_so(child: Child) -> None:
    assert child.status().stdout.endswith("no labelled pods\n")


def test_a_link_takes_one_line_however_many_there_are_when_piped(child: Child) -> None:
    name = "a-deployment-with-a-long-name-7d9f8c6b5-x2x4z"
    long = link(address="2001:db8:1111:2222:3333:4444:5555:6666/64", peer=name)
    child.says(*(pod(f"{name}-{n}", long) for n in range(150)))
    rows = [line for line in child.status().stdout.splitlines() if "vxlan" in line]
    assert len(rows) == 150
    assert all(f"2001:db8:1111:2222:3333:4444:5555:6666/64  {name} in2" in row for row in rows)


def test_nothing_is_lost_on_a_narrow_terminal(
    child: Child, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ratchetctl.tables.PIPED_WIDTH", 80)
    name = "a-deployment-with-a-long-name-7d9f8c6b5-x2x4z"
    child.says(pod(name, link(peer=name)))
    text = child.status().stdout
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80
    for word in ("192.168.2.100/24", "10.0.0.2", "vxlan 11", "cccccccccccc"):
        assert word in text
    assert re.search(r"up \d+ d$", text, re.MULTILINE)


def test_nothing_that_strangers_wrote_reaches_the_terminal_as_a_command(child: Child) -> None:
    child.says(
        pod("[red]a", link(ifname="i\x1b[2Jn", peer="[/]:bug:", state="error", error="e\x07\nrr"))
    )
    text = child.status().stdout
    assert not re.search(r"[^\n -~]", text)
    for word in ("default/[red]a", r"i\x1b[2Jn", ":bug:", r"e\x07\x0arr"):
        assert word in text


def test_json_has_everything(child: Child) -> None:
    far = link(peer="prod:b", last_error="e", last_error_at=2000.5)
    child.says(pod("a", far, namespace="prod"))
    found = child.json()
    assert found == {
        "state_dir": str(child.state_dir),
        "child": {"state": "running", "error": None},
        "node": "10.0.0.1",
        "parent_interface": "eth0",
        "trouble": None,
        "etcd": {"state": "reachable", "since": "1970-01-01T00:16:40Z", "error": None},
        "front": None,
        "guard": None,
        "labels": {"error": None},
        "agent": None,
        "pods": [
            {
                "namespace": "prod",
                "name": "a",
                "kubernetes_name": "a-0",
                "container_id": "c" * 64,
                "netns": "/run/netns/x",
                "attached_at": "1970-01-01T00:16:40Z",
                "state": "up",
                "error": None,
                "last_error": None,
                "last_error_at": None,
                "links": [
                    link(
                        peer="b",
                        since="1970-01-01T00:16:40Z",
                        last_error="e",
                        last_error_at="1970-01-01T00:33:20Z",
                    )
                ],
            }
        ],
    }


def test_every_key_of_the_json_is_described(child: Child) -> None:
    child.says(pod("a", link()))
    with open(os.path.join(ROOT, "docs", "operations.md"), encoding="utf-8") as file:
        section = file.read().partition("## ratchetctl status")[2].partition("\n## ")[0]
    described = set(re.findall(r"\w+", " ".join(re.findall(r"`([^`]+)`", section))))

    def keys(value: Any) -> set[str]:
        if isinstance(value, dict):
            return set(value).union(*map(keys, value.values()))
        return set().union(*map(keys, value)) if isinstance(value, list) else set()

    assert keys(child.json()) <= described


# Which pod


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ("a", ["default/a", "prod/a"]),
        ("prod/a", ["prod/a"]),
        ("prod:a", ["prod/a"]),
        ("default/a", ["default/a"]),
        ("b-0", ["default/b"]),
    ],
)
def test_pod_is_named_as_people_and_logs_do(child: Child, wanted: str, names: list[str]) -> None:
    child.says(pod("a"), pod("b"), pod("a", namespace="prod"))
    assert [f"{one['namespace']}/{one['name']}" for one in child.json(wanted)["pods"]] == names


@pytest.mark.parametrize("wanted", ["x", "test/a", "/a/b", ""])
def test_unknown_pod_is_an_error_that_says_which_there_are(child: Child, wanted: str) -> None:
    child.says(*(pod(f"p{n}") for n in range(7)))
    with pytest.raises(OperatorError, match=r"there are default/p0, .* and 2 more"):
        CliRunner().invoke(
            status, ["--state-dir", str(child.state_dir), wanted], catch_exceptions=False
        )


# No child, or no child's answer


def test_without_a_child_the_records_are_shown(child: Child) -> None:
    child.answer = None
    declared = Link(ifname="in1", address=None, pair="b", pair_ifname="in2", pair_address=None)
    record(child, "a", declared)
    record(child, "d")
    done = child.status()
    assert done.exit_code == 4
    assert done.stderr == "ratchetctl: no child runs: what follows is what the records say\n"
    assert re.search(r"^default/a +in1 +b in2 +- +- +unknown *$", done.stdout, re.MULTILINE)
    assert re.search(r"^default/d +id-d .* unknown *$", done.stdout, re.MULTILINE)
    found = child.json("a")
    assert found["child"] == {"state": "absent", "error": "no child runs"}
    assert (found["node"], found["etcd"]["state"]) == (None, "unknown")
    assert [(one["ifname"], one["state"]) for one in found["pods"][0]["links"]] == [
        ("in1", "unknown")
    ]


def test_neither_child_nor_pods_is_well(child: Child) -> None:
    child.answer = None
    done = child.status()
    assert done.exit_code == 0
    assert done.stderr == "ratchetctl: no child runs: no pod is recorded\n"
    assert done.stdout == "no labelled pods\n"


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"ok": False, "code": 199, "msg": "internal error", "details": "x"},
        {"ok": True},
        answer(pods=None),
        answer(pods={}),
        answer("a"),  # type: ignore[arg-type]
        answer({}),
        answer(pod(links=[3])),
        answer(pod("a", link(fault=["mtu"]))),
        answer(pod("a", link(vni=True))),
        answer(pod("a", link(primary="yes"))),
        answer(pod("a", link(state="upside down"))),
        answer(pod("a", link(since="now"))),
        answer(pod("a", link(since=float("nan")))),
        answer(pod("a", link(since=1e300))),
        answer(pod("a", attached_at=-1)),
        answer(node=None),
        answer(etcd=5),
        ChildError("no answer within 5 s", "/run/x"),
        ChildError("its answer is not a JSON object", "/run/x"),
    ],
)
def test_child_that_answers_nonsense_or_nothing_is_one_sentence(
    child: Child, said: dict[str, Any] | ChildError
) -> None:
    child.answer = said
    record(child, "a")
    done = child.status()
    assert done.exit_code == 4
    assert done.exception is None or isinstance(done.exception, SystemExit)
    assert re.fullmatch(r"ratchetctl: .*: what follows is what the records say\n", done.stderr)
    assert "default/a" in done.stdout
    assert child.json()["child"]["state"] == "silent"


# Where


def asked(child: Child, *arguments: str) -> str:
    CliRunner().invoke(status, arguments, catch_exceptions=False)
    return child.asked[-1][0]


def refused(*arguments: str) -> str:
    with pytest.raises(OperatorError) as caught:
        CliRunner().invoke(status, arguments, catch_exceptions=False)
    return str(caught.value)


def test_state_dir_is_that_of_the_configuration(child: Child, tmp_path: Path) -> None:
    plugin = {"type": "ratchet", "state_dir": "/run/x/y"}
    alone, listed = tmp_path / "a.conf", tmp_path / "b.conflist"
    alone.write_text(json.dumps({"name": "n", **plugin}))
    listed.write_text(json.dumps({"name": "n", "plugins": [{"type": "bridge"}, plugin]}))
    assert asked(child, "--config", str(alone)) == "/run/x/y"
    assert asked(child, "--config", str(listed)) == "/run/x/y"
    listed.write_text(json.dumps({"name": "n", "plugins": [{"type": "ratchet"}]}))
    assert asked(child, "--config", str(listed)) == "/run/ratchet/n"


def test_nodes_own_configuration_is_found(child: Child, tmp_path: Path) -> None:
    (tmp_path / "net.d").mkdir()
    for name, text in (
        ("00-broken.conf", "{"),
        ("05-other.conf", json.dumps({"name": "o", "type": "bridge"})),
        ("10-ratchet.conf.bak", json.dumps({"name": "old", "type": "ratchet"})),
        ("20-b.conflist", json.dumps({"name": "b", "plugins": [{"type": "ratchet"}]})),
        ("30-c.conf", json.dumps({"name": "c", "type": "ratchet"})),
    ):
        (tmp_path / "net.d" / name).write_text(text)
    assert asked(child) == "/run/ratchet/b"


def test_installers_configuration_is_found_where_an_agents_container_says(
    child: Child, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "k3s" / "net.d"
    (folder / "ratchet.node").mkdir(parents=True)
    (folder / "10-other.conf").write_text(json.dumps({"name": "c", "type": "ratchet"}))
    monkeypatch.setenv("RATCHET_CONF_DIR", str(folder))
    assert asked(child) == "/run/ratchet/c"
    ours = json.dumps({"name": "ours", "type": "ratchet"})
    (folder / "ratchet.node" / "ratchet.conf").write_text(ours)
    assert asked(child) == "/run/ratchet/ours"


def test_only_network_of_the_node_is_taken_without_a_configuration(
    child: Child, tmp_path: Path
) -> None:
    (tmp_path / "run" / "one").mkdir(parents=True)
    assert asked(child) == str(tmp_path / "run" / "one")
    (tmp_path / "run" / "two").mkdir()
    assert re.search("several networks: one, two|two, one", refused())


def test_broken_configuration_is_named_when_there_is_no_other(child: Child, tmp_path: Path) -> None:
    (tmp_path / "net.d").mkdir()
    (tmp_path / "net.d" / "10-ratchet.conf").write_text('{"type": "ratchet",}')
    said = refused()
    assert "give --config or --state-dir" in said
    assert "10-ratchet.conf is not JSON" in said


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "is not JSON"),
        ("[]", "is not a JSON object"),
        ('{"name": "n", "type": "bridge"}', "has no plugin of type ratchet"),
        ('{"type": "ratchet"}', "name"),
        ('{"name": "n", "type": "ratchet", "etcd_port": "x"}', "etcd_port"),
        ('{"name": "n", "plugins": [3, null]}', "has no plugin of type ratchet"),
    ],
)
def test_configuration_that_cannot_be_used_is_one_sentence(
    child: Child, tmp_path: Path, text: str, why: str
) -> None:
    path = tmp_path / "x.conf"
    path.write_text(text)
    said = refused("--config", str(path))
    assert why in said
    assert str(path) in said
    assert "\n" not in said


def test_directory_that_is_not_a_state_directory_is_refused(child: Child, tmp_path: Path) -> None:
    assert "is not a state directory" in refused("--state-dir", str(tmp_path))
    assert "is not a directory" in refused("--state-dir", str(tmp_path / "none"))


def test_config_and_state_dir_do_not_go_together(child: Child, tmp_path: Path) -> None:
    path = tmp_path / "x.conf"
    path.write_text("{}")
    assert child.status("--config", str(path)).exit_code == 2
