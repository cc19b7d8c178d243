"""`ratchetctl clean`: where it goes and what it refuses; no request is made."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from ratchetctl.clean import clean, endpoints


@pytest.mark.parametrize(
    ("hosts", "urls"),
    [
        ("h", ["http://h:2379"]),
        ("h:1, i", ["http://h:1", "http://i:2379"]),
        ("10.0.0.1", ["http://10.0.0.1:2379"]),
        ("fd00::1", ["http://[fd00::1]:2379"]),
        ("[fd00::1]", ["http://[fd00::1]:2379"]),
        ("[fd00::1]:9", ["http://[fd00::1]:9"]),
    ],
)
def test_hosts_are_written_as_in_the_network_configuration(hosts: str, urls: list[str]) -> None:
    assert endpoints(hosts, 2379, tls=False) == urls


def test_tls_is_https() -> None:
    assert endpoints("h", 1, tls=True) == ["https://h:1"]


@pytest.mark.parametrize("prefix", ["/", "", "//", "/a/../b", "a//b", "."])
def test_refuses_to_remove_all_of_etcd(prefix: str) -> None:
    done = CliRunner().invoke(clean, ["--etcd-host", "h", "--prefix", prefix, "--yes"])
    assert done.exit_code == 2
    assert "not Ratchet's to remove" in done.output


def test_a_url_is_not_a_host() -> None:
    done = CliRunner().invoke(clean, ["--etcd-host", "http://h:2379", "--yes"])
    assert done.exit_code == 2
    assert "without http://" in done.output


def test_asks_first() -> None:
    done = CliRunner().invoke(clean, ["--etcd-host", "h,i"], input="n\n")
    assert done.exit_code == 1
    assert "Remove every key below /ratchet from http://h:2379, http://i:2379?" in done.output


def test_a_user_needs_a_password_file() -> None:
    done = CliRunner().invoke(clean, ["--etcd-host", "h", "--username", "u", "--yes"])
    assert done.exit_code == 2
    assert "--password-file" in done.output
