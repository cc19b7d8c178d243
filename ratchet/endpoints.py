"""Addresses and endpoints of the network configuration: host, host:port, [IPv6]:port.

On the path of every pod: ``_socket`` stands for ``socket``, whose enums take 5 ms, and for
``ipaddress``.
"""

from __future__ import annotations

import _socket


def parse(text: str, default_port: int | None) -> tuple[str, int] | None:
    """Return host and port of host, host:port, [v6], [v6]:port or a bare IPv6 address."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or ":" not in host or (rest and not rest.startswith(":")):
            return None
        port_text = rest[1:] if rest else None
    elif text.count(":") > 1:
        host, port_text = text, None
    else:
        host, colon, rest = text.partition(":")
        port_text = rest if colon else None
    if ":" in host:
        if packed(host) is None:
            return None
    elif not is_word(host) or host.startswith(("-", ".")):
        return None
    if port_text is None:
        return None if default_port is None else (host, default_port)
    if not (port_text.isascii() and port_text.isdigit() and len(port_text) <= 5):
        return None
    port = int(port_text)
    return (host, port) if 0 < port <= 65535 else None


def joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def packed(text: str) -> bytes | None:
    """Return an address as bytes, None when it is none."""
    try:
        return _socket.inet_pton(_socket.AF_INET6 if ":" in text else _socket.AF_INET, text)
    except (OSError, ValueError):
        return None


def is_word(text: str) -> bool:
    return text != "" and all((c.isascii() and c.isalnum()) or c in "-._" for c in text)
