"""Which daemons of FRR a configuration names."""

from __future__ import annotations

import pytest

from ratchetctl.sim.routers.frr_daemons import LINES, Daemon, is_configuration, plan

ETC = "/etc/frr/"


def names(**files: str) -> list[str]:
    """Return what runs; files by their names, with _ for the dot."""
    found = plan({ETC + name.replace("_", "."): text for name, text in files.items()}, "r1")
    return [daemon.name for daemon in found.daemons]


@pytest.mark.parametrize(
    ("lines", "daemon"),
    [
        ("router bgp 65001", "bgpd"),
        ("router ospf\n ospf router-id 1.1.1.1", "ospfd"),
        ("interface eth1\n ip ospf area 0", "ospfd"),
        ("interface eth1\n ipv6 ospf6 area 0", "ospf6d"),
        ("router isis 1", "isisd"),
        ("interface eth1\n ipv6 router isis 1", "isisd"),
        ("ip route 10.0.0.0/8 10.1.1.1", "staticd"),
        ("vrf red\n ip route 10.0.0.0/8 10.1.1.1", "staticd"),
        ("bfd\n peer 10.0.0.1", "bfdd"),
        ("router rip\n network eth1", "ripd"),
        ("router ripng", "ripngd"),
        ("interface eth1\n ip pim", "pimd"),
        ("interface eth1\n ipv6 pim", "pim6d"),
        ("mpls ldp\n router-id 1.1.1.1", "ldpd"),
        ("interface eth1\n ip nhrp network-id 1", "nhrpd"),
        ("router eigrp 1", "eigrpd"),
        ("router babel", "babeld"),
        ("pbr-map A seq 1", "pbrd"),
        ("router openfabric 1", "fabricd"),
        ("interface eth1\n vrrp 5 version 3", "vrrpd"),
        ("segment-routing\n traffic-eng", "pathd"),
    ],
)
def test_lines_of_frr_conf_name_their_daemon(lines: str, daemon: str) -> None:
    assert names(frr_conf=f"hostname r1\n{lines}\n") == ["zebra", daemon]


def test_a_session_with_bfd_names_bfd_as_well() -> None:
    text = "router bgp 1\n neighbor eth1 interface remote-as external\n neighbor eth1 bfd\n"
    assert names(frr_conf=text) == ["zebra", "bgpd", "bfdd"]


def test_comments_descriptions_and_removals_name_nothing() -> None:
    text = "! router bgp 1\nno router ospf\ninterface eth1\n description ip ospf area 0\n"
    assert names(frr_conf=text) == ["zebra"]
    assert names(frr_conf="ip forwarding\nip prefix-list A permit any\n") == ["zebra"]


def test_files_of_single_daemons_name_them_where_quagga_has_them_too() -> None:
    assert names(bgpd_conf="", zebra_conf="") == ["zebra", "bgpd"]
    found = plan({"/etc/quagga/zebra.conf": "", "/etc/quagga/ospfd.conf": "router ospf\n"}, "r1")
    assert [daemon.name for daemon in found.daemons] == ["zebra", "ospfd"]
    assert not found.is_integrated
    assert set(found.files) == {"zebra.conf", "ospfd.conf", "vtysh.conf"}


def test_the_file_daemons_decides_and_what_it_leaves_out_is_told() -> None:
    daemons = """\
        # bgpd=yes
        ospfd=yes   # the way inside
        isisd=no
        export bfdd="yes"
        zebra_options=" -A 127.0.0.1 -s 90000000"
        ospfd_options='-A "::1"'
        frr_global_options="--limit-fds 100"
        MAX_FDS=2048
    """
    text = "router ospf\nrouter bgp 65001\nrouter isis 1\n"
    found = plan({ETC + "daemons": daemons, ETC + "frr.conf": text}, "r1")
    assert found.daemons == (
        Daemon("zebra", ("--limit-fds", "100", "-A", "127.0.0.1", "-s", "90000000")),
        Daemon("ospfd", ("--limit-fds", "100", "-A", "::1")),
        # FRR's own script starts it whatever the file says.
        Daemon("staticd", ("--limit-fds", "100", "-A", "127.0.0.1")),
        Daemon("bfdd", ("--limit-fds", "100", "-A", "127.0.0.1")),
    )
    assert found.max_fds == 2048
    assert [name for name, _ in found.left_out] == ["bgpd", "isisd"]
    assert "bgpd=yes" in found.left_out[0][1]


@pytest.mark.parametrize("said", ["", "MAX_FDS=many\n", "MAX_FDS=0\n"])
def test_a_daemon_may_open_as_many_files_as_frrs_own_script_lets_it(said: str) -> None:
    assert plan({ETC + "daemons": said, ETC + "frr.conf": ""}, "r1").max_fds == 1024


def test_a_router_without_a_configuration_has_its_name() -> None:
    found = plan({}, "r1")
    assert found.files["frr.conf"] == "hostname r1\n"
    assert [daemon.name for daemon in found.daemons] == ["zebra"]


def test_the_configuration_may_lie_anywhere_and_other_files_stay_where_they_are() -> None:
    files = {"/conf/frr.conf": "router bgp 1\n", "/conf/daemons": "bgpd=1\n", "/srv/x": "y"}
    found = plan(files, "r1")
    assert set(found.files) == {"frr.conf", "daemons", "vtysh.conf"}
    assert found.others == {"/srv/x": "y"}
    assert [daemon.name for daemon in found.daemons] == ["zebra", "bgpd", "staticd"]


@pytest.mark.parametrize("path", ["/x/frr.conf", "/etc/frr/bgpd.conf", "/etc/quagga/zebra.conf"])
def test_knows_its_configuration(path: str) -> None:
    assert is_configuration(path)
    assert not is_configuration("/etc/frr/daemons")
    assert not is_configuration("/x/bgpd.conf")


def test_every_daemon_of_the_package_is_known_in_the_order_of_frrs_script() -> None:
    assert list(LINES)[:3] == ["zebra", "bgpd", "ripd"]
    assert list(LINES)[-3:] == ["fabricd", "vrrpd", "pathd"]
