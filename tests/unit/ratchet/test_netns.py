"""A path is not an identity: what counts as a pod's namespace, and what does not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ratchet import netns
from ratchet.cni.errors import CniError

OWN = netns.own_identity()
DEVICE = OWN[0]
POD, OTHER = (DEVICE, 1), (DEVICE, 2)
FILE = (DEVICE + 1, 1)


@pytest.mark.parametrize(
    ("found", "known", "another"),
    [
        pytest.param(POD, POD, False, id="the pod's"),
        pytest.param(OTHER, POD, True, id="another one"),
        pytest.param(OTHER, None, False, id="nobody knows whose"),
        pytest.param(OWN, POD, True, id="the node's"),
        pytest.param(OWN, None, True, id="the node's, and nobody knows the pod's"),
        pytest.param(OWN, OWN, True, id="the node's, as a forged record says"),
        pytest.param(FILE, POD, False, id="no namespace: the mount is not seen"),
    ],
)
def test_only_what_stood_there_at_the_add_is_the_pods(
    found: netns.Identity, known: netns.Identity | None, another: bool
) -> None:
    assert netns.is_another(found, known, OWN) == another


def test_a_del_gets_the_path_only_of_the_pods_own_namespace(tmp_path: Path) -> None:
    uts = netns.identity_at("/proc/self/ns/uts")
    for path, known, expected in (
        ("/proc/self/ns/uts", uts, "/proc/self/ns/uts"),
        ("/proc/self/ns/uts", None, "/proc/self/ns/uts"),
        ("/proc/self/ns/ipc", uts, ""),
        ("/proc/self/ns/net", None, ""),
        ("/proc/self/ns/net", OWN, ""),
        (str(tmp_path / "nowhere"), uts, str(tmp_path / "nowhere")),
        ("", uts, ""),
    ):
        assert netns.of_pod(path, known) == expected, (path, known)


def test_a_link_is_followed_to_what_stands_there_now(tmp_path: Path) -> None:
    link = tmp_path / "ns"
    link.symlink_to("/proc/self/ns/uts")
    assert netns.require(str(link)) == netns.identity_at("/proc/self/ns/uts")
    link.unlink()
    link.symlink_to("/proc/self/ns/net")
    with pytest.raises(CniError, match="node's own namespace") as caught:
        netns.require(str(link))
    assert caught.value.code == 4
    assert os.fspath(link) in str(caught.value)
