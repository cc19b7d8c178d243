"""How moments, and text by strangers, are written for a person and for a program."""

from __future__ import annotations

from datetime import datetime, timezone


def age(moment: float, now: float) -> tuple[int, str]:
    """Return how long ago something was, in its largest unit. A clock may have been set back."""
    seconds = max(int(now - moment), 0)
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return seconds // length, unit
    return seconds, "s"


def iso(moment: float | None) -> str | None:
    """Return a moment as RFC 3339 has it, in whole seconds of UTC."""
    if moment is None:
        return None
    return datetime.fromtimestamp(int(moment), timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def plain(text: str) -> str:
    """Return text without what a terminal would obey."""
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)
