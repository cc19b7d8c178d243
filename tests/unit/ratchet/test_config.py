from __future__ import annotations

import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet import config
from ratchet.config import OURS, SETTINGS, Config
from ratchet.errors import ConfigError

V010 = {
    # A configuration of Ratchet CNI v0.1.0.
    "name": "ratchet-demo",
    "type": "ratchet",
    "cniDir": "/var/lib/cni/networks",
    "etcd_host": "10.0.0.1",
    "etcd_port": "2379",
    "child_path": "/opt/cni/bin/ratchet-child",
    "parent_interface": "eth0",
    "parent_address": "192.168.1.1",
    "use_labels": True,
    "delegate": {"name": "cbr0", "type": "flannel", "delegate": {"isDefaultGateway": True}},
    "boot_network": {"type": "loopback"},
}


def parse(**keys: Any) -> Config:
    return Config.parse({"name": "net", "type": "ratchet", **keys})


def test_a_configuration_of_v010_is_read_unchanged() -> None:
    config = Config.parse(V010)
    assert config.cni_version == ""
    assert config.etcd_endpoints == (("10.0.0.1", 2379),)
    assert config.child_path == "/opt/cni/bin/ratchet-child"
    assert (config.parent_interface, config.parent_address) == ("eth0", "192.168.1.1")
    assert config.boot_network == {"type": "loopback"}
    assert config.delegate == V010["delegate"]


def test_defaults() -> None:
    config = parse()
    assert config.etcd_endpoints == (("127.0.0.1", 2379),)
    assert config.etcd_prefix == "/ratchet"
    assert config.state_dir == "/run/ratchet/net"
    assert (config.wait, config.wait_seconds) == ("present", 5.0)
    assert config.attach == "plugin"
    assert (config.use_labels, config.label_source) == (True, "auto")
    assert (config.vxlan_port, config.mtu, config.max_links) == (4789, None, 256)
    assert config.docker_socket == "/var/run/docker.sock"
    assert (config.log_file, config.log_level) == (None, "info")
    assert config.delegate is None
    assert config.boot_network is None
    assert config.child_path is None
    assert not config.etcd_tls


@pytest.mark.parametrize(
    ("host", "endpoints"),
    [
        ("a", (("a", 4001),)),
        ("a:1", (("a", 1),)),
        ("a, b:2,a", (("a", 4001), ("b", 2))),
        ("::1", (("::1", 4001),)),
        ("[::1]", (("::1", 4001),)),
        ("[fd00::1]:9,10.0.0.1", (("fd00::1", 9), ("10.0.0.1", 4001))),
    ],
)
def test_etcd_hosts(host: str, endpoints: tuple[tuple[str, int], ...]) -> None:
    assert parse(etcd_host=host, etcd_port=4001).etcd_endpoints == endpoints


def each(keys: tuple[str, ...], values: tuple[Any, ...]) -> list[tuple[str, Any]]:
    return [(key, value) for key in keys for value in values]


WRONG: list[Any] = [
    *(("name", value) for value in (None, "", 1, "../x", "-a", "a b", "ä")),
    *(
        ("etcd_host", value)
        for value in (1, "http://a", "a:", "a:0", "a:65536", "a:b", "a,,b", ":1", "[a]:1")
    ),
    *(("etcd_host", value) for value in ("[::1", "[::1]1", "::g", "-a", "a b", "a/b", "a\n")),
    *each(
        ("etcd_port", "vxlan_port"),
        (0, 65536, -1, "x", "-1", "1.5", 1.5, True, [], "²", "9" * 5000),
    ),
    *(("mtu", value) for value in (0, 67, 65536, "big")),
    *(("max_links", value) for value in (0, -1, 65536, "all")),
    *(("etcd_prefix", value) for value in ("ratchet", "/", "//a", "/a//b", "/a/../b", "/_a", "/ä")),
    *(
        (key, value)
        for key in (
            "etcd_ca_cert",
            "kubeconfig",
            "docker_socket",
            "state_dir",
            "log_file",
            "etcd_password_file",
        )
        for value in ("relative", 1, "/a\nb", ["/a"])
    ),
    *each(("child_path",), ("./ratchet-child", 1)),
    *each(("parent_interface",), ("a/b", "x" * 16, ".", "a b", 1)),
    *(
        ("parent_address", value)
        for value in ("x", "10.0.0.0/24", "0.0.0.0", "::", "224.0.0.1", "ff02::1", 1, "1.2.3")
    ),
    *each(("public_ip_networks",), ("10.0.0.0/8", 1, True, {}, [1], [None], ["x"])),
    *each(("public_ip_networks",), (["10.0.0.0/33"], ["10.0.0.0/"], ["10.0.0.0/8/8"])),
    *each(("public_ip_networks",), (["fd00::/129"], ["10.0.0.0/8", "x"], [["10.0.0.0/8"]])),
    *each(("use_labels",), ("true", "false", 1, 0, "yes")),
    *each(("label_source",), ("Auto", "k8s", 1, ["auto"])),
    *each(("attach",), ("Agent", "both", True)),
    *each(("wait",), ("some", True)),
    *each(("guard",), ("on", True, "Auto")),
    *each(("wait_seconds",), (-1, 101, "x", True, "nan", "inf", [])),
    *each(("etcd_username",), ("a:b", 1)),
    *each(("etcd_host",), ("user:password@a", "user@a", "user:password@a:1")),
    ("log_level", "trace"),
    *each(("metrics_address",), ("a", "a:x", 9100, "[::1]")),
    *each(("delegate",), ("bridge", [], {}, {"type": ""}, {"type": 1})),
    *(("delegate", {"type": value}) for value in ("../sh", "a/b", "..")),
    *each(("delegate",), ({"plugins": []}, {"plugins": {}}, {"plugins": [1]}, {"plugins": [{}]})),
    ("delegate", {"plugins": [{"type": "a/b"}]}),
    ("delegate", {"type": "a", "name": 1}),
    ("boot_network", {"type": "a", "cniVersion": 1}),
]


@pytest.mark.parametrize(("key", "value"), WRONG)
def test_a_wrong_value_is_an_error_that_names_key_and_what_is_allowed(key: str, value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(**{key: value})
    assert caught.value.code == 7
    assert caught.value.msg.startswith(f"invalid network configuration: {key}")
    assert "allowed is" in caught.value.msg


@pytest.mark.parametrize("key", [key for key in OURS if key != "name"])
def test_null_is_the_same_as_absent(key: str) -> None:
    assert parse(**{key: None}).settings() == parse().settings()


@pytest.mark.parametrize(
    ("one", "other"), [("etcd_cert", "etcd_key"), ("etcd_username", "etcd_password_file")]
)
def test_keys_that_go_together(one: str, other: str) -> None:
    parse(**{one: "/a", other: "/b"})
    for key, missing in ((one, other), (other, one)):
        with pytest.raises(ConfigError, match=missing):
            parse(**{key: "/a"})


@pytest.mark.parametrize(
    ("misspelt", "meant"),
    [
        ("etcdHost", "etcd_host"),
        ("etcd_hosts", "etcd_host"),
        ("etcd-host", "etcd_host"),
        ("ectd_host", "etcd_host"),
        ("bootNetwork", "boot_network"),
        ("boot_networks", "boot_network"),
        ("delegates", "delegate"),
        ("parent_adress", "parent_address"),
        ("wait_second", "wait_seconds"),
        ("useLabels", "use_labels"),
        ("kubeConfig", "kubeconfig"),
        ("logLevel", "log_level"),
    ],
)
def test_a_misspelt_key_of_ours_is_an_error_that_names_the_right_one(
    misspelt: str, meant: str
) -> None:
    with pytest.raises(ConfigError, match=rf"'{misspelt}'.* {meant}\?"):
        parse(**{misspelt: "x"})


@pytest.mark.parametrize(
    "key",
    [
        "cniDir", "args", "runtimeConfig", "prevResult", "capabilities", "dns", "ipam", "ipMasq",
        "masterplugin", "cni.dev/valid-attachments", "disableCheck", "bridge",
        "isGateway", "hairpinMode", "promiscMode", "vlan", "routes", "_comment", "master", "x", "",
        "keyPassthrough", "portMappings", "runtime_config", "plugins", "backend", "forceAddress",
    ],
)  # fmt: skip
def test_keys_of_others_are_ignored(key: str) -> None:
    parse(**{key: {"what": "ever"}})


values = st.none() | st.booleans() | st.integers() | st.floats() | st.text()


@given(
    st.dictionaries(
        st.sampled_from([*OURS, "cniVersion"]) | st.text(),
        values | st.lists(values, max_size=2) | st.dictionaries(st.text(), values, max_size=2),
    )
)
def test_whatever_comes_is_a_configuration_or_a_config_error(obj: dict[str, Any]) -> None:
    try:
        config = Config.parse(obj)
    except ConfigError:
        return
    assert Config.from_settings(config.settings()).settings() == config.settings()


right = st.fixed_dictionaries(
    {"name": st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,9}", fullmatch=True)},
    optional={
        "etcd_host": st.lists(
            st.sampled_from(["a", "b:1", "::1", "[fd00::2]:5", "10.0.0.1"]), min_size=1
        ).map(",".join),
        "etcd_port": st.integers(1, 65535) | st.integers(1, 65535).map(str),
        "etcd_prefix": st.sampled_from(["/a", "/a/b/", "/ratchet"]),
        "parent_address": st.ip_addresses()
        .filter(lambda a: not (a.is_multicast or a.is_unspecified or int(a.packed[0]) >= 224))
        .map(str),
        "use_labels": st.booleans(),
        "wait": st.sampled_from(["present", "all", "none"]),
        "wait_seconds": st.floats(0, 100) | st.integers(0, 100) | st.integers(0, 100).map(str),
        "mtu": st.integers(68, 65535),
        "max_links": st.integers(1, 65535),
        "public_ip_networks": st.lists(st.sampled_from(["10.0.0.0/8", "fd00::/8", "1.1.1.1"])),
        "log_file": st.just("/var/log/ratchet.log"),
        "metrics_address": st.sampled_from([":9100", "127.0.0.1:1", "[::1]:9"]),
    },
)


@given(right)
def test_settings_are_json_and_read_back_as_they_were(obj: dict[str, Any]) -> None:
    found = Config.parse(obj)
    settings = json.loads(json.dumps(found.settings()))
    again = Config.from_settings(settings)
    assert {key for key in SETTINGS if key not in settings} == set()
    for key in SETTINGS:
        assert getattr(again, key) == getattr(found, key)


def test_a_key_is_one_row_of_which_all_else_follows() -> None:
    assert {*vars(parse()), "cni_version"} == {*OURS, "cni_version"}
    assert set(OURS) - set(SETTINGS) == {
        "delegate",
        "boot_network",
        "etcd_port",
        "public_ip_networks",
    }
    source = Path(config.__file__).read_text()
    for key in OURS:
        assert (
            len(re.findall(rf"^    {key} = _(?:passed_on|parents)\(", source, re.MULTILINE)) == 1
        ), key


def test_a_key_that_is_added_as_one_row_is_a_key_in_every_respect() -> None:
    """The module, with one line more, reads the key, refuses it misspelt and passes it on."""
    source = Path(config.__file__).read_text()
    row = '    cable_colour = _passed_on(values.choice, ("red", "green"), "red")\n'
    head, method, rest = source.partition("    @classmethod\n    def parse(")
    assert method
    module = ModuleType("ratchet.config_with_one_more_key")
    exec(compile(head + row + method + rest, config.__file__, "exec"), vars(module))
    found = module.Config.parse({"name": "n", "cable_colour": "green"})
    assert (found.cable_colour, module.Config.parse({"name": "n"}).cable_colour) == ("green", "red")
    assert "cable_colour" in module.OURS
    assert module.Config.from_settings(found.settings()).cable_colour == "green"
    with pytest.raises(ConfigError, match=r"cable_colour is 'blue'; allowed is one of red, green"):
        module.Config.parse({"name": "n", "cable_colour": "blue"})
    with pytest.raises(ConfigError, match="'cable_color' is not a key; did you mean cable_colour"):
        module.Config.parse({"name": "n", "cable_color": "red"})
