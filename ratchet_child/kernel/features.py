"""What of an interface rtnetlink(7) does not set: by ioctl(2), ethtool(8), and by sysctl(8)."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl

from ratchet_child.kernel.netns import Namespace, Netlink, entered

_SIOCETHTOOL = 0x8946
_ETHTOOL_GLINK = 0x0A
_ETHTOOL_STXCSUM = 0x17


def prepare_ipv6(namespace: Namespace, ifname: str) -> None:
    """Have an interface take IPv6 addresses, and keep them when the pod sets it down.

    A pod may have IPv6 turned off (`net.ipv6.conf.all.disable_ipv6`); an address that its labels
    give to one interface turns it on there, as the reference bridge plugin does. What cannot be
    written is told by the address that is refused.
    """
    _write(namespace, ifname, {"ipv6/disable_ipv6": "0", "ipv6/keep_addr_on_down": "1"})


def tell_of_new_mac(namespace: Namespace, ifname: str) -> None:
    """Have the kernel tell the neighbours when an interface gets another MAC address.

    Otherwise they send to the one before until they ask again, half a minute and more (arp(7)).
    """
    _write(namespace, ifname, {"ipv4/arp_notify": "1", "ipv6/ndisc_notify": "1"})


def _write(namespace: Namespace, ifname: str, values: dict[str, str]) -> None:
    """Set what can be set of an interface below /proc/sys/net, by family and name."""
    with contextlib.suppress(OSError), entered(namespace.fd):
        for name, value in values.items():
            family, _, key = name.partition("/")
            path = f"/proc/sys/net/{family}/conf/{ifname}/{key}"
            with contextlib.suppress(OSError), open(path, "w", encoding="ascii") as file:
                file.write(value)


def transmit_checksums_off(netlink: Netlink, ifname: str) -> None:
    """Have the kernel make checksums itself.

    Systems in VMs drop TCP segments whose checksum was left to a device that never comes.
    """
    _ethtool(netlink, ifname, _ETHTOOL_STXCSUM)


def ask_for_carrier(netlink: Netlink, ifname: str) -> None:
    """Ask whether an interface has its carrier; see `Devices.settle`."""
    _ethtool(netlink, ifname, _ETHTOOL_GLINK)


class _EthtoolValue(ctypes.Structure):
    """struct ethtool_value, linux/ethtool.h."""

    _fields_ = (("cmd", ctypes.c_uint32), ("data", ctypes.c_uint32))


class _EthtoolRequest(ctypes.Structure):
    """struct ifreq with ifr_data, netdevice(7)."""

    _fields_ = (
        ("name", ctypes.c_char * 16),
        ("data", ctypes.c_void_p),
        ("rest", ctypes.c_char * 16),
    )


def _ethtool(netlink: Netlink, ifname: str, command: int) -> None:
    value = _EthtoolValue(command, 0)
    request = _EthtoolRequest(ifname.encode(), ctypes.addressof(value))
    with contextlib.suppress(OSError):  # a device without the feature has nothing to turn off
        fcntl.ioctl(netlink.fileno(), _SIOCETHTOOL, request)
