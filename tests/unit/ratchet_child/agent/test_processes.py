"""A pod's namespace is found by the cgroup of its oldest process."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ratchet_child.agent.processes import Sandbox, find_sandboxes, is_there

UID = "0f0e0d0c-1111-2222-3333-444455556666"
OTHER = "0f0e0d0c-1111-2222-3333-44445555666"  # a part of it
TICKS = os.sysconf("SC_CLK_TCK")

CGROUPFS = f"0::/kubepods/burstable/pod{UID}/4a5b"
SYSTEMD = (
    "0::/kubepods.slice/kubepods-besteffort.slice/"
    f"kubepods-besteffort-pod{UID.replace('-', '_')}.slice/cri-containerd-4a5b.scope"
)
GUARANTEED = f"0::/kubepods.slice/kubepods-pod{UID.replace('-', '_')}.slice/crio-4a5b.scope"
SEEN_FROM_A_CONTAINER = f"0::/../../pod{UID}/4a5b"
V1 = f"12:pids:/kubepods/pod{UID}/4a5b\n11:cpu,cpuacct:/\nname=systemd:/x"


class Host:
    """A /proc and a /run/netns in a folder."""

    def __init__(self, folder: Path) -> None:
        self.proc, self.namespaces = folder / "proc", folder / "netns"
        self.proc.mkdir()
        self.namespaces.mkdir()
        (self.proc / "meminfo").write_text("")

    def process(self, pid: int, cgroup: str, started: int, namespace: str = "one") -> None:
        folder = self.proc / str(pid)
        (folder / "ns").mkdir(parents=True)
        (folder / "cgroup").write_text(cgroup)
        fields = ["S", *["0"] * 18, str(started), "0"]
        (folder / "stat").write_text(f"{pid} (a) b ({' '.join(fields)}".replace("(S", ") S"))
        target = self.proc / f"ns-{namespace}"
        target.touch()
        (folder / "ns" / "net").symlink_to(target)

    def mount(self, name: str, namespace: str = "one") -> str:
        os.link(self.proc / f"ns-{namespace}", self.namespaces / name)
        return str(self.namespaces / name)

    def find(self, *uids: str) -> dict[str, Sandbox]:
        return find_sandboxes(uids, str(self.proc), str(self.namespaces))


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


@pytest.mark.parametrize("cgroup", [CGROUPFS, SYSTEMD, GUARANTEED, SEEN_FROM_A_CONTAINER, V1])
def test_a_pod_is_found_whatever_names_its_cgroup(host: Host, cgroup: str) -> None:
    host.process(1, "0::/init.scope", 0, "host")
    host.process(70, cgroup, 5 * TICKS)
    netns = host.mount("cni-1234")
    assert host.find(UID) == {UID: Sandbox(netns, 5.0)}


def test_another_pod_is_not_taken_for_it(host: Host) -> None:
    host.process(70, CGROUPFS, 5)
    assert host.find(OTHER, "pod", "") == {}
    assert host.find() == {}


@pytest.mark.parametrize("name", [f"pod{UID}", f"kubepods-pod{UID.replace('-', '_')}.slice"])
def test_a_pod_that_calls_a_cgroup_of_its_own_as_another_pods_is_not_taken_for_it(
    host: Host, name: str
) -> None:
    """Its process may well be older than the sandbox of the pod whose name it uses."""
    attacker = "9f0e0d0c-1111-2222-3333-444455556666"
    host.process(60, f"0::/kubepods/burstable/pod{attacker}/4a5b/{name}", 2 * TICKS, "attacker")
    host.process(70, CGROUPFS, 5 * TICKS)
    netns = host.mount("cni-1234")
    assert host.find(UID) == {UID: Sandbox(netns, 5.0)}


def test_a_static_pod_is_found_by_its_hash(host: Host) -> None:
    digest = "0f0e0d0c111122223333444455556666"
    host.process(70, f"0::/kubepods/burstable/pod{digest}/4a5b", 5 * TICKS)
    assert set(host.find(digest)) == {digest}


def test_the_oldest_process_counts(host: Host) -> None:
    """Its containers may have made namespaces of their own, and process IDs begin anew."""
    host.process(90, CGROUPFS, 5 * TICKS)
    host.process(20, CGROUPFS, 9 * TICKS, "nested")
    netns = host.mount("cni-1234")
    assert host.find(UID) == {UID: Sandbox(netns, 5.0)}


def test_without_a_mount_the_process_stands_for_it(host: Host) -> None:
    host.process(70, CGROUPFS, 5 * TICKS)
    found = host.find(UID)[UID]
    assert found == Sandbox(f"{host.proc}/70/ns/net", 5.0)
    assert is_there(found)
    (host.proc / "70" / "stat").write_text("70 (new) S" + " 0" * 18 + " 777 0")
    assert not is_there(found)


def test_a_mount_is_there_until_it_is_gone(host: Host) -> None:
    host.process(70, CGROUPFS, 5)
    found = Sandbox(host.mount("cni-1234"), 0.05)
    assert is_there(found)
    os.unlink(found.netns)
    assert not is_there(found)


def test_a_pod_of_the_hosts_network_has_no_sandbox(host: Host) -> None:
    host.process(70, CGROUPFS, 5)
    link = host.proc / "70" / "ns" / "net"
    link.unlink()
    link.symlink_to("/proc/self/ns/net")
    assert host.find(UID) == {}


@pytest.mark.parametrize("stat", ["", "70 (a", "70 (a) S", "70 (a) S" + " x" * 30])
def test_a_process_that_has_just_ended_is_passed_over(host: Host, stat: str) -> None:
    host.process(70, CGROUPFS, 5)
    (host.proc / "70" / "stat").write_text(stat)
    assert host.find(UID) == {}
