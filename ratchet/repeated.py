"""A failure that comes again and again: told once, then counted.

containerd asks for STATUS every five seconds, and each time another parent answers, so what was
told before is kept in the state directory. Nothing in here may fail an operation: where the file
cannot be read or written, the failure is told once more.
"""

from __future__ import annotations

import os
import time

from ratchet import log, statedir
from ratchet.cni import codec


def note(state_dir: str, what: str, error: object) -> int:
    """Note that something has failed; return how often it has failed in this way before."""
    path = statedir.failed_path(state_dir, what)
    text, count, since = _read(path)
    if text != str(error):
        count, since = 0, time.time()
    try:  # noqa: SIM105 - contextlib would cost 2 ms
        statedir.write_private(path, codec.encode([str(error), count + 1, since]))
    except OSError:
        pass
    return count


def over(state_dir: str, what: str) -> None:
    """Note that something has succeeded, and log that if it had failed before."""
    path = statedir.failed_path(state_dir, what)
    if not os.path.lexists(path):
        return
    text, count, since = _read(path)
    statedir.remove(path)
    for_s = f"{max(time.time() - since, 0):.0f}"
    log.info(f"{what} is well again", failures=count, for_s=for_s, last_error=text)


def is_told(repeats: int) -> bool:
    """Tell whether a failure is worth a line: the first one, the 11th, the 101st and so on."""
    return repeats != 1 and str(repeats).rstrip("0") in ("", "1")


def last(state_dir: str, what: str) -> str | None:
    """Return how something has failed last; None when it has not, or has succeeded since."""
    return _read(statedir.failed_path(state_dir, what))[0] or None


def _read(path: str) -> tuple[str, int, float]:
    try:
        with open(path, "rb") as file:
            text, count, since = codec.decode(file.read())
        return str(text), int(count), float(since)
    except (OSError, ValueError, TypeError, ArithmeticError):
        return "", 0, 0.0
