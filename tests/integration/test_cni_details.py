"""The CNI specification at every corner: environment, configuration, delegates, repeated calls.

Of requests that are wrong here is one case for each rule, through the real plugin; every other one
is in tests/unit/ratchet/test_request_grammar.py.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.lab.cases import each_of
from tests.lab.cluster import Cluster
from tests.lab.polling import wait_for
from tests.lab.runtime import (
    FRONT,
    PAIR,
    REFERENCE_PLUGINS,
    Call,
    Config,
    Node,
    Outcome,
    Pod,
    in1_in2,
    plugin_dir,
    request_config,
    script,
)

pytestmark = pytest.mark.root

VERSIONS = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]

# CNI spec §5 Error
INCOMPATIBLE, UNKNOWN_CONTAINER, ENVIRONMENT, IO, UNDECODABLE, INVALID = 1, 3, 4, 5, 6, 7
DELEGATE_ERROR = 101


def ask(
    node: Node,
    pod: Pod,
    command: str = "ADD",
    config: Config | bytes | None = None,
    changes: Mapping[str, str | None] | None = None,
) -> Outcome:
    """Execute the plugin with changes to a good environment and a good configuration."""
    request = request_config(node.config(), in1_in2("b"), None) if config is None else config
    return node.execute(request, node.environ(command, pod, changes=changes)).finish()


def assert_untouched(cluster: Cluster, node: Node, pod: Pod) -> None:
    assert pod.netns.names() == {"lo"}
    assert node.records() == []
    assert node.way == FRONT or node.children() == []
    assert cluster.etcd.tree() == {}


# The environment


@each_of(
    ("command", "variable", "value"),
    [
        pytest.param("ADD", "CNI_CONTAINERID", None, id="missing"),
        pytest.param("CHECK", "CNI_NETNS", "", id="empty"),
        pytest.param("DEL", "CNI_IFNAME", None, id="missing at DEL"),
        pytest.param("ADD", "CNI_COMMAND", None, id="no operation"),
        pytest.param("ADD", "CNI_COMMAND", "REMOVE", id="an unknown operation"),
        pytest.param(
            "ADD", "CNI_CONTAINERID", "../../etc/passwd", id="a container ID that is none"
        ),
        pytest.param("DEL", "CNI_IFNAME", "eth/0", id="an interface name that is none"),
        pytest.param("ADD", "CNI_ARGS", "K8S_POD_NAME=a;=b", id="arguments that are none"),
    ],
)
def test_wrong_environment_is_error_4_and_the_variable_is_named(
    cluster: Cluster, node: Node, command: str, variable: str, value: str | None
) -> None:
    pod = cluster.pod("a")
    outcome = ask(node, pod, command, changes={variable: value})
    assert outcome.error["code"] == ENVIRONMENT
    assert variable in outcome.error_text
    assert_untouched(cluster, node, pod)


def test_args_come_in_any_order(cluster: Cluster, node: Node) -> None:
    pod = cluster.pod("a", "red")
    args = ";".join(reversed(pod.cni_args().split(";")))
    node.add(pod, in1_in2("b"), environ={"CNI_ARGS": args}).succeeded()
    wait_for("the id", lambda: cluster.etcd.get("/ratchet/association/red:a/id"))


def test_add_in_a_namespace_that_does_not_exist_is_an_error(cluster: Cluster, node: Node) -> None:
    pod = cluster.pod("a")
    outcome = ask(node, pod, changes={"CNI_NETNS": "/run/netns/rt-there-is-none"})
    assert outcome.error
    assert_untouched(cluster, node, pod)


# The configuration


@each_of(
    ("command", "stdin"),
    [
        pytest.param("ADD", b'{"name": "x"', id="cut"),
        pytest.param("DEL", b"\xff\xfe", id="not UTF-8"),
        pytest.param("GC", b"", id="empty"),
    ],
)
def test_configuration_that_is_not_json_is_error_6(
    cluster: Cluster, node: Node, command: str, stdin: bytes
) -> None:
    pod = cluster.pod("a")
    assert ask(node, pod, command, stdin).error["code"] == UNDECODABLE
    assert_untouched(cluster, node, pod)


def test_configuration_that_is_no_object_is_an_error(cluster: Cluster, node: Node) -> None:
    pod = cluster.pod("a")
    assert ask(node, pod, "ADD", b"[]").error["code"] in (UNDECODABLE, INVALID)
    assert_untouched(cluster, node, pod)


@each_of(
    ("key", "value"),
    [
        pytest.param("name", None, id="missing"),
        pytest.param("delegate", {"bridge": "cni0"}, id="a delegate without a type"),
        pytest.param("boot_network", [], id="another type"),
        pytest.param("etcd_port", 70000, id="out of range"),
        pytest.param("label_source", "oracle", id="none of the words"),
        pytest.param("parent_address", "10.99.0.300", id="an address that is none"),
        pytest.param("parent_interface", "much-too-long-a-name", id="a name that is none"),
    ],
)
def test_wrong_configuration_value_is_error_7_and_named(
    cluster: Cluster, node: Node, key: str, value: Any
) -> None:
    pod = cluster.pod("a")
    config = node.config(**{key: value})
    outcome = ask(node, pod, "ADD", request_config(config, in1_in2("b"), None))
    assert outcome.error["code"] == INVALID
    assert key in outcome.error_text
    assert_untouched(cluster, node, pod)


def test_misspelt_key_is_error_7_that_names_the_right_one(cluster: Cluster, node: Node) -> None:
    pod = cluster.pod("a")
    config = node.config()
    config["bootNetwork"] = config.pop("boot_network")
    outcome = ask(node, pod, "ADD", request_config(config, in1_in2("b"), None))
    assert outcome.error["code"] == INVALID
    assert "bootNetwork" in outcome.error_text
    assert "boot_network" in outcome.error_text
    assert_untouched(cluster, node, pod)


def test_unknown_keys_are_ignored(cluster: Cluster, node: Node) -> None:
    pod = cluster.pod("a")
    node.add(pod, in1_in2("b"), cniDir="/var/lib/cni", somebodyElses={"x": 1}).succeeded()


@each_of("command", ["ADD", "DEL"])
def test_unknown_version_is_error_1_and_named(cluster: Cluster, node: Node, command: str) -> None:
    pod = cluster.pod("a")
    config = {**node.config(), "cniVersion": "9.9.9"}
    outcome = ask(node, pod, command, request_config(config, in1_in2("b"), None))
    assert outcome.error["code"] == INCOMPATIBLE
    assert "9.9.9" in outcome.error_text
    assert_untouched(cluster, node, pod)


def test_version_that_is_no_string_is_an_error(cluster: Cluster, node: Node) -> None:
    pod = cluster.pod("a")
    config = {**node.config(), "cniVersion": ["1.0.0"]}
    outcome = ask(node, pod, "ADD", request_config(config, in1_in2("b"), None))
    assert outcome.error["code"] in (INCOMPATIBLE, UNDECODABLE, INVALID)
    assert_untouched(cluster, node, pod)


def test_version_lists_all_versions(cluster: Cluster, node: Node) -> None:
    outcome = node.execute({"cniVersion": "0.3.1"}, {"CNI_COMMAND": "VERSION"}).finish()
    assert outcome.result["supportedVersions"] == VERSIONS
    assert outcome.result["cniVersion"] in VERSIONS
    outcome = node.execute(node.config(), node.environ("VERSION")).finish()
    assert outcome.result["supportedVersions"] == VERSIONS


@pytest.mark.parametrize("environ", [{"CNI_COMMAND": "VERSION"}, {"CNI_COMMAND": "ADD"}, {}])
def test_what_needs_no_standard_input_is_answered_while_that_stays_open(
    node: Node, environ: dict[str, str]
) -> None:
    program = os.path.join(plugin_dir(), "ratchet")
    reading, writing = os.pipe()
    try:
        found = subprocess.run(
            node.namespace.command(program),
            env=environ, stdin=reading, capture_output=True, timeout=10,
        )  # fmt: skip
    finally:
        os.close(reading)
        os.close(writing)
    answer = json.loads(found.stdout)
    assert answer.get("supportedVersions", VERSIONS) == VERSIONS
    assert answer.get("code", ENVIRONMENT) == ENVIRONMENT


@pytest.mark.parametrize(
    ("closed", "code"), [("0<&-", 1), ("1>&-", 1), ("2>&-", 0), ("0<&- 1>&- 2>&-", 1)]
)
def test_streams_that_are_closed_are_not_taken_for_files(
    cluster: Cluster, node: Node, closed: str, code: int
) -> None:
    """What is opened next would have their numbers: the log, a record, the child's socket."""
    pod = cluster.pod("a")
    program = os.path.join(plugin_dir(), "ratchet")
    argv = node.namespace.command("/bin/sh")
    request = request_config(node.config(), in1_in2("b"), None)
    call = Call(
        [*argv, "-c", f"exec {program} {closed}"],
        node.environ("ADD", pod),
        json.dumps(request).encode(),
    )
    outcome = call.finish()
    assert outcome.exit == code
    if closed == "0<&-":
        assert outcome.error["code"] == IO
    lines = node.log().splitlines()
    assert not [line for line in lines if not line.startswith("time=")]
    # If the log had the number of standard error, each line would be there twice. Two lines may
    # well say the same in one millisecond.
    own = [line for line in lines if "program=ratchet " in line]
    assert not own or len(own) < 2 * len(set(own))
    node.delete(pod, config=request).succeeded()


# Delegates


# What they do at ADD; at DEL they behave, as a runtime's DEL after the failure has to succeed.
BAD_PLUGINS = {
    "is killed": "kill -9 $$",
    "ends without a word": "exit 0",
    "fails without a word": "exit 3",
    "prints nonsense": "echo '<html>'; exit 0",
    "fails with nonsense": "echo 'panic: oh'; exit 2",
    "prints half a result": 'printf \'{"cniVersion": "1.0.0", "ips": [\'; exit 0',
    "prints a list": "echo '[]'; exit 0",
}
FAILS_AT_ADD = 'cat >/dev/null; [ "$CNI_COMMAND" = DEL ] && exit 0; '


@each_of("behaviour", [*BAD_PLUGINS, "hangs up"])
def test_boot_network_that_misbehaves_is_an_error_that_names_it(
    cluster: Cluster, node: Node, tmp_path: Path, behaviour: str
) -> None:
    if behaviour == "hangs up":
        text = '[ "$CNI_COMMAND" = DEL ] && exit 0; exec <&-; exec >&-; exit 1'
    else:
        text = FAILS_AT_ADD + BAD_PLUGINS[behaviour]
    environ = script(tmp_path, "misbehaving", text)
    pod = cluster.pod("a")
    outcome = node.add(pod, in1_in2("b"), environ=environ, boot_network={"type": "misbehaving"})

    assert outcome.error["code"] == DELEGATE_ERROR
    assert "misbehaving" in outcome.error_text
    assert_nothing_stays(cluster, node, pod)
    node.delete(pod, environ=environ).succeeded()
    assert_nothing_stays(cluster, node, pod)


def assert_nothing_stays(cluster: Cluster, node: Node, pod: Pod) -> None:
    assert pod.netns.names() == {"lo"}
    wait_for("the record to go", node.records, until=lambda records: not records)
    wait_for(
        "the keys to go",
        lambda: set(cluster.etcd.tree()),
        until=lambda keys: keys <= {"/ratchet/", "/ratchet/vxlanid"},
    )


def test_boot_networks_own_error_goes_up_unchanged(
    cluster: Cluster, node: Node, tmp_path: Path
) -> None:
    error = {"cniVersion": "1.0.0", "code": 123, "msg": "no vacancy", "details": "all rooms taken"}
    environ = script(tmp_path, "full", f"{FAILS_AT_ADD} echo '{json.dumps(error)}'; exit 1")
    pod = cluster.pod("a")
    outcome = node.add(pod, in1_in2("b"), environ=environ, boot_network={"type": "full"})

    assert {**outcome.error, "cniVersion": "1.0.0"} == error
    assert_nothing_stays(cluster, node, pod)
    node.delete(pod, environ=environ).succeeded()


@each_of("labels", [{}, in1_in2("b")])
def test_delegate_that_is_missing_is_an_error_that_names_it(
    cluster: Cluster, node: Node, labels: dict[str, str]
) -> None:
    pod = cluster.pod("a")
    missing = {"type": "there-is-no-such-plugin"}
    outcome = node.add(pod, labels, delegate=missing, boot_network=missing)

    assert outcome.error["code"] == DELEGATE_ERROR
    assert "there-is-no-such-plugin" in outcome.error_text
    assert_untouched(cluster, node, pod)
    node.attachments.clear()


def test_delegate_type_that_is_a_path_is_refused(
    cluster: Cluster, node: Node, tmp_path: Path
) -> None:
    script(tmp_path, "evil", f"touch {tmp_path}/executed; echo '{{}}'")
    pod = cluster.pod("a")
    outcome = node.add(pod, {}, delegate={"type": f"../../..{tmp_path}/evil"})

    assert outcome.error
    assert not (tmp_path / "executed").exists()
    node.attachments.clear()


def test_boot_network_that_hangs_until_the_runtime_gives_up_leaks_nothing(
    cluster: Cluster, node: Node, tmp_path: Path
) -> None:
    """The runtime kills the plugin; its DEL cleans up what the boot network had done."""
    environ = script(
        tmp_path,
        "hanging",
        f'if [ "$CNI_COMMAND" = ADD ]; then {REFERENCE_PLUGINS}/bridge >/dev/null;'
        f" touch {tmp_path}/reached; exec sleep 1000; fi; exec {REFERENCE_PLUGINS}/bridge",
    )
    pod = cluster.pod("a")
    call = node.start_add(
        pod, in1_in2("b"), environ=environ, boot_network=node.bridge_config(type="hanging")
    )
    wait_for("the boot network to hang", (tmp_path / "reached").exists)
    assert "eth0" in pod.netns.names()
    hanging = (
        node.namespace.processes() - {call.process.pid} - {*node.children(), *node.supervisors()}
    )
    call.kill()
    for pid in hanging:
        os.kill(pid, signal.SIGKILL)

    node.delete(pod, environ=environ).succeeded()
    assert_nothing_stays(cluster, node, pod)
    leases = Path(node.bridge_config()["ipam"]["dataDir"]) / "ratchet-test"
    assert not list(leases.glob("10.*"))


# Repeats


def test_add_twice_gives_the_same_result_and_one_link(cluster: Cluster, node: Node) -> None:
    left, right = cluster.pod("a"), cluster.pod("b")
    first = node.add(left, in1_in2("b")).result
    assert node.add(left, in1_in2("b")).result == first
    first = node.add(right, PAIR).result
    assert node.add(right, PAIR).result == first

    left.netns.wait_ping("192.168.2.101")
    assert left.netns.names() == {"lo", "in1"}
    assert len(node.records()) == 2


def test_add_twice_with_a_boot_network_that_refuses_it_keeps_the_first(
    cluster: Cluster, node: Node
) -> None:
    """host-local refuses a second address for an attachment: its error, and all else stays."""
    left, right = cluster.pod("a"), cluster.pod("b")
    boot: dict[str, Any] = {"boot_network": node.bridge_config()}
    node.add(left, in1_in2("b"), **boot).succeeded()
    node.add(right, PAIR, **boot).succeeded()
    left.netns.wait_ping("192.168.2.101")

    with left.netns.watch("in1") as in1, left.netns.watch("eth0") as eth0:
        again = node.add(left, in1_in2("b"), **boot)
        if again.exit != 0:
            assert again.error
        assert left.netns.pings("192.168.2.101")
        assert in1.flaps() == []
        assert eth0.flaps() == []
    assert len(node.records()) == 2


def test_del_twice_succeeds(cluster: Cluster, node: Node) -> None:
    left, right = cluster.pod("a"), cluster.pod("b")
    node.add(left, in1_in2("b"), boot_network=node.bridge_config()).succeeded()
    node.add(right, PAIR).succeeded()
    index = right.netns.wait_link("in2")["ifindex"]
    for _ in range(3):
        outcome = node.delete(left).succeeded()
        assert outcome.stdout.strip() == b""
    # The later ones of a runtime: an empty namespace, no prevResult.
    node.delete(left, environ={"CNI_NETNS": ""}, prev_result=False).succeeded()
    left.netns.wait_no_link("in1")
    assert left.netns.names() == {"lo"}
    assert right.netns.wait_no_carrier("in2")["ifindex"] == index


@each_of("labels", [{}, in1_in2("b")])
def test_del_before_add_succeeds(cluster: Cluster, node: Node, labels: dict[str, str]) -> None:
    pod = cluster.pod("a")
    config = request_config(node.config(), labels, None)
    node.delete(pod, config=config).succeeded()
    node.delete(pod, config=config, environ={"CNI_NETNS": None}).succeeded()
    assert_untouched(cluster, node, pod)


@each_of("place", [0, 1])
@each_of("netns", ["kept", None, ""])
def test_del_succeeds_when_the_namespace_is_gone(
    cluster: Cluster, node: Node, place: int, netns: str | None
) -> None:
    left, right = cluster.pod("a"), cluster.pod("b")
    node.add(left, in1_in2("b")).succeeded()
    cluster.nodes[place].add(right, PAIR).succeeded()
    left.netns.wait_ping("192.168.2.101")

    index = right.netns.wait_link("in2")["ifindex"]
    left.netns.remove()
    environ = {} if netns == "kept" else {"CNI_NETNS": netns}
    node.delete(left, environ=environ).succeeded()
    assert right.netns.wait_no_carrier("in2")["ifindex"] == index
    cluster.wait_withdrawn(left, "b/links/a:in1")


def test_del_runs_the_boot_networks_del(cluster: Cluster, node: Node) -> None:
    pod = cluster.pod("a")
    node.add(pod, in1_in2("b"), boot_network=node.bridge_config()).succeeded()
    assert "eth0" in pod.netns.names()
    leases = Path(node.bridge_config()["ipam"]["dataDir"]) / "ratchet-test"
    assert list(leases.glob("10.*"))
    # The record and not today's configuration says what was done.
    node.delete(pod, config=request_config(node.config(), {}, None)).succeeded()

    assert pod.netns.names() == {"lo"}
    assert not list(leases.glob("10.*"))


@each_of("how", ["stopped", "paused"])
@each_of("place", [0, 1])
def test_del_succeeds_without_etcd_and_the_keys_vanish_once_it_is_back(
    cluster: Cluster, node: Node, place: int, how: str
) -> None:
    left, right = cluster.pod("a"), cluster.pod("b")
    other = cluster.nodes[place]
    node.add(left, in1_in2("b")).succeeded()
    other.add(right, PAIR).succeeded()
    left.netns.wait_ping("192.168.2.101")

    if how == "stopped":
        cluster.etcd.stop()
    else:
        cluster.etcd.pause()
    assert node.delete(left).succeeded().elapsed_s < 5
    assert node.delete(left, environ={"CNI_NETNS": ""}).succeeded().elapsed_s < 5
    assert other.delete(right).succeeded().elapsed_s < 5
    # The links need no etcd to be removed.
    left.netns.wait_no_link("in1")
    right.netns.wait_no_link("in2")
    time.sleep(1)
    cluster.etcd.start()
    cluster.etcd.resume()

    wait_for(
        "the keys to go",
        lambda: set(cluster.etcd.tree()),
        until=lambda keys: keys <= {"/ratchet/", "/ratchet/vxlanid"},
        timeout_s=20,
    )
    for at in (node, other):
        wait_for("the records to go", at.records, until=lambda records: not records)
