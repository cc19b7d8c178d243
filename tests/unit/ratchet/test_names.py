"""One name is a name everywhere: to the configuration, the environment, labels and etcd."""

from __future__ import annotations

import io
import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet import names
from ratchet.cni import skel
from ratchet.config import Config
from ratchet.errors import ConfigError, LabelError
from ratchet.label_values import check_ifname
from ratchet_child.model.keys import Declaration, PodKey, Published
from ratchet_child.pairing import v010
from ratchet_child.store.api import Entry

# What the kernel says of each is asked of it in tests/integration/test_interface_names.py.
EXISTING_ONLY = ("a\x01b", "in%d", "%", "all", "default", "\x7f", "a\u3000b", "a\u200bb")
BOTH = ("in1", "eth0.5", "é", "-", "Ω" * 7, "x" * 15, "lo", "...")
NEITHER = ("", "à", "a b", "a\tb", "a/b", "a:b", ".", "..", "x" * 16, "Ω" * 8, "a\xa0", "\ud800")


def of_configuration(name: str) -> bool:
    try:
        Config.parse({"name": "n", "parent_interface": name or " "})
    except ConfigError:
        return False
    return True


def of_environment(name: str) -> bool:
    environ = {
        "CNI_COMMAND": "DEL",
        "CNI_CONTAINERID": "c1",
        "CNI_IFNAME": name,
        "CNI_PATH": "/x",
    }
    asked: list[skel.Request] = []
    stdin = io.BytesIO(b'{"cniVersion": "1.0.0", "name": "n", "type": "t"}')
    skel.main(environ, stdin, io.BytesIO(), {"DEL": asked.append})
    return len(asked) == 1


def of_a_label(name: str) -> bool:
    try:
        check_ifname("ratchet.local_ifname", name, cni_ifname="none")
    except LabelError as error:
        return "lo, which" in str(error)
    return True


def of_a_declaration(name: str) -> bool:
    value = {"container": "c", "vni": 11, "ifname": name, "address": None, "pair_ifname": "a"}
    try:
        Declaration.loads(json.dumps({**value, "pair_address": None}), "b")
    except ValueError:
        return False
    return True


def of_what_a_node_published(name: str) -> bool:
    try:
        Published.loads(json.dumps({"container": "c", "declared": [["b", name]]}))
    except ValueError:
        return False
    return True


def of_v010(name: str) -> bool:
    words = {"primaryname": "a", "vxlanid": "11", "pairifname": name, "pairip": ""}
    own = {key: Entry(value, 1, 1) for key, value in words.items()}
    return v010.offer(PodKey("default", "b"), own) is not None


EXISTING = (of_configuration, of_environment)
NEW = (of_a_label, of_a_declaration, of_what_a_node_published, of_v010)


@pytest.mark.parametrize("name", [*EXISTING_ONLY, *BOTH, *NEITHER], ids=ascii)
@pytest.mark.parametrize("takes", EXISTING)
def test_who_names_an_interface_that_exists_takes_what_the_kernel_does(
    takes: Callable[[str], bool], name: str
) -> None:
    assert takes(name) == (name not in NEITHER)


@pytest.mark.parametrize("name", [*EXISTING_ONLY, *BOTH, *NEITHER], ids=ascii)
@pytest.mark.parametrize("takes", NEW)
def test_who_names_an_interface_that_we_make_takes_what_can_be_made(
    takes: Callable[[str], bool], name: str
) -> None:
    assert takes(name) == (name in BOTH)


@given(st.text(max_size=20))
def test_what_can_be_made_is_what_the_kernel_takes_and_less(text: str) -> None:
    if names.is_new_ifname(text):
        assert names.is_ifname(text)
        assert "%" not in text


@given(st.text(max_size=70))
def test_names_of_pods_are_identifiers_of_cni(text: str) -> None:
    if names.is_namespace(text):
        assert names.is_kubernetes_name(text)
    if names.is_kubernetes_name(text):
        assert names.is_pod_name(text)
    if names.is_pod_name(text):
        assert names.is_container_name(text)
    if names.is_container_name(text):
        assert names.is_identifier(text)
