"""Every request that is wrong: its environment, its standard input, its network configuration.

The skeleton is given Ratchet's own operations, as the program does it. That nothing has been
changed on the node by the time of the error is tested once for each rule, through the program, in
tests/integration/test_cni_details.py.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

import pytest

from ratchet import plugin
from ratchet.cni import skel

VERSIONS = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]

# CNI spec §5 Error
INCOMPATIBLE, ENVIRONMENT, UNDECODABLE, INVALID = 1, 4, 6, 7

ENVIRON = {
    "CNI_COMMAND": "ADD",
    "CNI_CONTAINERID": "c1",
    "CNI_NETNS": "/run/netns/x",
    "CNI_IFNAME": "eth0",
    "CNI_PATH": "/opt/cni/bin",
    "CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=a",
}
LABELS = {
    "ratchet": "true",
    "ratchet.primary": "true",
    "ratchet.local_ifname": "in1",
    "ratchet.local_ip": "192.168.2.100",
    "ratchet.pair_name": "b",
    "ratchet.pair_ifname": "in2",
    "ratchet.pair_ip": "192.168.2.101",
}
CONFIG: dict[str, Any] = {
    "cniVersion": "1.0.0",
    "name": "ratchet-test",
    "type": "ratchet",
    "delegate": {"type": "bridge", "bridge": "cni0"},
    "boot_network": {"type": "loopback"},
    "etcd_host": "10.99.0.1",
    "etcd_port": 12379,
    "child_path": "/opt/cni/bin/ratchet-child",
    "parent_interface": "eth0",
    "parent_address": "10.99.0.11",
    "args": {"cni": {"labels": [{"key": key, "value": text} for key, text in LABELS.items()]}},
}


def answer(
    environ: Mapping[str, str | None], config: dict[str, Any] | bytes = CONFIG
) -> tuple[int, dict[str, Any]]:
    """Return the exit code and what is printed; a change of the environment to None unsets it."""
    changed = {key: text for key, text in {**ENVIRON, **environ}.items() if text is not None}
    out = io.BytesIO()
    stdin = io.BytesIO(config if isinstance(config, bytes) else json.dumps(config).encode())
    code = skel.main(changed, stdin, out, plugin.OPERATIONS)
    return code, json.loads(out.getvalue())


def error(
    environ: Mapping[str, str | None], config: dict[str, Any] | bytes = CONFIG
) -> tuple[int, str]:
    """Return the code and the text of the error, checked as CNI spec §5 Error demands."""
    code, printed = answer(environ, config)
    assert code != 0
    assert printed["code"] > 0
    assert isinstance(printed["msg"], str)
    assert printed["msg"]
    return printed["code"], f"{printed['msg']} {printed.get('details', '')}"


# The environment


@pytest.mark.parametrize("command", ["ADD", "CHECK", "DEL"])
@pytest.mark.parametrize("variable", ["CNI_CONTAINERID", "CNI_IFNAME", "CNI_PATH"])
@pytest.mark.parametrize("value", [None, ""], ids=["missing", "empty"])
def test_a_missing_variable_is_error_4_and_named(
    command: str, variable: str, value: str | None
) -> None:
    code, text = error({"CNI_COMMAND": command, variable: value})
    assert code == ENVIRONMENT
    assert variable in text


@pytest.mark.parametrize("command", ["ADD", "CHECK"])
@pytest.mark.parametrize("value", [None, ""], ids=["missing", "empty"])
def test_a_missing_netns_is_error_4_and_named(command: str, value: str | None) -> None:
    code, text = error({"CNI_COMMAND": command, "CNI_NETNS": value})
    assert code == ENVIRONMENT
    assert "CNI_NETNS" in text


@pytest.mark.parametrize("value", [None, "", "add", "ADD ", "REMOVE", "VERSIONS"])
def test_a_wrong_command_is_error_4_and_named(value: str | None) -> None:
    code, text = error({"CNI_COMMAND": value})
    assert code == ENVIRONMENT
    assert "CNI_COMMAND" in text


@pytest.mark.parametrize("command", ["ADD", "CHECK", "DEL"])
@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("CNI_CONTAINERID", "../../etc/passwd"),
        ("CNI_CONTAINERID", ".hidden"),
        ("CNI_CONTAINERID", "with space"),
        ("CNI_CONTAINERID", "new\nline"),
        ("CNI_IFNAME", "sixteen-bytes-xx"),
        ("CNI_IFNAME", "eth/0"),
        ("CNI_IFNAME", "eth:0"),
        ("CNI_IFNAME", "eth 0"),
        ("CNI_IFNAME", "."),
        ("CNI_IFNAME", ".."),
    ],
)
def test_a_malformed_variable_is_error_4_and_named(command: str, variable: str, value: str) -> None:
    code, text = error({"CNI_COMMAND": command, variable: value})
    assert code == ENVIRONMENT
    assert variable in text


@pytest.mark.parametrize("value", ["K8S_POD_NAME", "K8S_POD_NAME=a;=b", "="])
def test_malformed_arguments_are_error_4_and_named(value: str) -> None:
    code, text = error({"CNI_ARGS": value})
    assert code == ENVIRONMENT
    assert "CNI_ARGS" in text


# Standard input


@pytest.mark.parametrize("command", ["ADD", "CHECK", "DEL", "GC", "STATUS"])
@pytest.mark.parametrize(
    "stdin",
    [b"", b"hello", b'{"name": "x"', b"\xff\xfe", b"{}}", b"[1", b"\0" * 10],
    ids=["empty", "a word", "cut", "not UTF-8", "too much", "open list", "zeros"],
)
def test_a_configuration_that_is_not_json_is_error_6(command: str, stdin: bytes) -> None:
    assert error({"CNI_COMMAND": command}, stdin)[0] == UNDECODABLE


@pytest.mark.parametrize("stdin", [b"[]", b'"text"', b"7", b"null", b"true"])
def test_a_configuration_that_is_no_object_is_an_error(stdin: bytes) -> None:
    assert error({}, stdin)[0] in (UNDECODABLE, INVALID)


# The network configuration


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", None),
        ("name", ""),
        ("name", "a/b"),
        ("name", 7),
        ("delegate", "bridge"),
        ("delegate", {"bridge": "cni0"}),
        ("boot_network", {"type": ""}),
        ("boot_network", []),
        ("etcd_port", "many"),
        ("etcd_port", 70000),
        ("etcd_host", 7),
        ("use_labels", "perhaps"),
        ("label_source", "oracle"),
        ("wait", "forever"),
        ("wait_seconds", "soon"),
        ("wait_seconds", -1),
        ("vxlan_port", 0),
        ("mtu", "big"),
        ("log_level", "loud"),
        ("parent_address", "10.99.0.300"),
        ("parent_interface", "much-too-long-a-name"),
    ],
)
def test_a_wrong_value_is_error_7_and_its_key_is_named(key: str, value: Any) -> None:
    config = {known: setting for known, setting in CONFIG.items() if known != key}
    if value is not None:
        config[key] = value
    code, text = error({}, config)
    assert code == INVALID
    assert key in text


@pytest.mark.parametrize(
    ("misspelt", "right"),
    [
        ("etcd_hots", "etcd_host"),
        ("boot-network", "boot_network"),
        ("bootNetwork", "boot_network"),
        ("parent_adress", "parent_address"),
        ("Delegate", "delegate"),
    ],
)
def test_a_misspelt_key_is_error_7_that_names_the_right_one(misspelt: str, right: str) -> None:
    config = {(misspelt if key == right else key): value for key, value in CONFIG.items()}
    code, text = error({}, config)
    assert code == INVALID
    assert misspelt in text
    assert right in text


@pytest.mark.parametrize("command", ["ADD", "CHECK", "DEL"])
@pytest.mark.parametrize("version", ["9.9.9", "2.0.0", "0.5.0", "latest", "1", 1.0, ["1.0.0"]])
def test_an_unknown_version_is_error_1_and_named(command: str, version: Any) -> None:
    code, text = error({"CNI_COMMAND": command}, {**CONFIG, "cniVersion": version})
    if isinstance(version, str):
        assert code == INCOMPATIBLE
        assert version in text
    else:
        assert code in (INCOMPATIBLE, UNDECODABLE, INVALID)


@pytest.mark.parametrize("command", ["ADD", "CHECK", "DEL"])
def test_the_request_from_which_the_wrong_ones_are_made_reaches_its_operation(command: str) -> None:
    class ReachedError(BaseException):
        pass

    def operation(request: skel.Request) -> None:
        raise ReachedError

    stdin = io.BytesIO(json.dumps(CONFIG).encode())
    environ = {**ENVIRON, "CNI_COMMAND": command}
    with pytest.raises(ReachedError):
        skel.main(environ, stdin, io.BytesIO(), {command: operation})


@pytest.mark.parametrize("asked", VERSIONS)
def test_version_lists_all_versions(asked: str) -> None:
    code, printed = answer({"CNI_COMMAND": "VERSION"}, {"cniVersion": asked})
    assert code == 0
    assert printed["supportedVersions"] == VERSIONS
    assert printed["cniVersion"] in VERSIONS
