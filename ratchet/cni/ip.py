"""IP addresses, with and without a prefix length: what the parent needs of ``ipaddress``.

``ipaddress`` brings ``functools`` and ``collections`` with it: 3 ms of CPU in the frozen program,
for every eligible pod. Here inet_pton(3) and inet_ntop(3) read and write the text.
"""

from __future__ import annotations

import _socket

from ratchet.cni.dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Host:
    """An address without a prefix length."""

    packed: bytes
    """4 or 16 bytes, in network byte order."""

    @classmethod
    def parse(cls, text: str) -> Host:
        """Read an IPv4 address or an IPv6 address without scope. Raises ValueError."""
        family = _socket.AF_INET6 if ":" in text else _socket.AF_INET
        try:
            return cls(_socket.inet_pton(family, text))
        except OSError as exc:
            raise ValueError(f"{text!a} is not an IP address") from exc

    def __str__(self) -> str:
        family = _socket.AF_INET if self.version == 4 else _socket.AF_INET6
        return _socket.inet_ntop(family, self.packed)

    @property
    def version(self) -> int:
        return 4 if len(self.packed) == 4 else 6

    @property
    def is_unspecified(self) -> bool:
        return not any(self.packed)

    @property
    def is_loopback(self) -> bool:
        """RFC 1122 §3.2.1.3, RFC 4291 §2.5.3."""
        return self.packed == _LOOPBACK or (self.version == 4 and self.packed[0] == 127)

    @property
    def is_multicast(self) -> bool:
        """RFC 5771 §3, RFC 4291 §2.7."""
        return self.packed[0] == 0xFF if self.version == 6 else self.packed[0] >> 4 == 0xE

    @property
    def is_ipv4_mapped(self) -> bool:
        """RFC 4291 §2.5.5.2."""
        return self.version == 6 and self.packed.startswith(_MAPPED)


_LOOPBACK = b"\0" * 15 + b"\1"
_MAPPED = b"\0" * 10 + b"\xff\xff"


@dataclass(frozen=True, slots=True)
class Address:
    """An address with a prefix length; without host bits, a network."""

    ip: Host
    prefix_len: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read ``address`` or ``address/prefix length``. Raises ValueError."""
        host, slash, length = text.partition("/")
        ip = Host.parse(host)
        longest = len(ip.packed) * 8
        if not slash:
            return cls(ip, longest)
        if not (length.isascii() and length.isdigit() and len(length) <= 3):
            raise ValueError(f"{text!a}: the prefix length is not a number")
        if int(length) > longest:
            raise ValueError(f"{text!a}: a prefix length is at most {longest}")
        return cls(ip, int(length))

    def __str__(self) -> str:
        return f"{self.ip}/{self.prefix_len}"

    @property
    def version(self) -> int:
        return self.ip.version

    @property
    def host_bits(self) -> int:
        return len(self.ip.packed) * 8 - self.prefix_len

    @property
    def network(self) -> Address:
        number = int.from_bytes(self.ip.packed, "big") >> self.host_bits << self.host_bits
        return Address(self._host(number), self.prefix_len)

    @property
    def broadcast(self) -> Host:
        """The network's last address."""
        number = int.from_bytes(self.ip.packed, "big")
        return self._host(number | ((1 << self.host_bits) - 1))

    def _host(self, number: int) -> Host:
        return Host(number.to_bytes(len(self.ip.packed), "big"))
