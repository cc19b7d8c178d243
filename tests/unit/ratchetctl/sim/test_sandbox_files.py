"""What a runtime writes for every pod."""

from __future__ import annotations

from ratchetctl.sim.directory import PodState
from ratchetctl.sim.sandbox_files import own_files


def files(**result: object) -> dict[str, str]:
    return own_files(PodState("default", "r1", "u", "c", "node1", {}, {}, "/x", dict(result)))


def test_the_pods_name_is_that_of_its_addresses() -> None:
    found = files(ips=[{"address": "10.1.0.2/24"}, {"address": "fd00::2/64"}])
    assert found["/etc/hostname"] == "r1\n"
    lines = found["/etc/hosts"].splitlines()
    assert {"127.0.0.1\tlocalhost", "10.1.0.2\tr1", "fd00::2\tr1"} <= set(lines)


def test_a_pod_without_addresses_knows_its_name() -> None:
    assert "127.0.1.1\tr1" in files()["/etc/hosts"].splitlines()


def test_names_are_asked_where_the_result_says_and_nowhere_else() -> None:
    assert files()["/etc/resolv.conf"] == ""
    found = files(dns={"nameservers": ["10.9.0.1"], "search": ["a.local", "b.local"]})
    assert found["/etc/resolv.conf"] == "nameserver 10.9.0.1\nsearch a.local b.local\n"
