"""Interface names of vendors, as the images of each kind expect them, and names of nodes."""

from __future__ import annotations

import pytest

from ratchetctl.topo import names


@pytest.mark.parametrize(
    ("kind", "title", "wanted"),
    [
        ("linux", "eth1", "eth1"),
        ("nokia_srlinux", "ethernet-1/1", "e1-1"),
        ("nokia_srlinux", "ethernet-1/3/2", "e1-3-2"),
        ("nokia_srlinux", "e1-1", "e1-1"),
        ("arista_ceos", "Ethernet1/1", "eth1_1"),
        ("arista_ceos", "Ethernet3", "eth3"),
        ("arista_ceos", "et2", "eth2"),
        ("arista_veos", "Ethernet1/2", "eth2"),
        ("juniper_vsrx", "ge-0/0/2", "eth3"),
        ("juniper_vmx", "et-0/0/0", "eth1"),
        ("cisco_csr1000v", "Gi5", "eth4"),
        ("cisco_csr1000v", "GigabitEthernet3", "eth2"),
        ("cisco_iol", "Ethernet0/1", "eth1"),
        ("cisco_iol", "Ethernet1/2", "eth6"),
        ("cisco_xrv9k", "Gi0/0/0/1", "eth2"),
        ("unknown", "TenGigE0/0/0/1", "te0-0-0-1"),
        ("unknown", "port 1", "port-1"),
    ],
)
def test_interface_names_are_mapped(kind: str, title: str, wanted: str) -> None:
    assert names.interface(kind, title) == wanted


@pytest.mark.parametrize("title", ["eth0", "lo", "", "/", "{{ .x }}", "${IF}", "eth%d", "x" * 16])
def test_what_cannot_be_mapped_is_refused_with_the_reason(title: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        names.interface("linux", title)
    assert len(str(caught.value)) > 10


@pytest.mark.parametrize(
    ("title", "wanted"),
    [("r1", "r1"), ("a--0", "a--0"), ("Köln 2", "koln-2"), ("-x-", "x"), ("__", None)],
)
def test_a_nodes_name_is_kept_where_kubernetes_takes_it(title: str, wanted: str | None) -> None:
    assert names.pod_name(title) == wanted
