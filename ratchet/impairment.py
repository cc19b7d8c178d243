"""What a link's end does to the frames that it sends: it is slow, late, or loses them.

A property of one end, so that the two directions of a link may differ. What there is to say is one
row of `QUANTITIES`: the label that gives it, and how people write it. Numbers are whole numbers of
a small unit, so that what is read is exactly what is kept, compared and shown.

Pure. How the kernel does it is the child's business (``kernel.qdisc``).
"""

from __future__ import annotations

from ratchet.cni.dataclasses import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

_PPM = 1_000_000
_LONGEST = 24  # characters of a value


@dataclass(frozen=True, slots=True)
class Impairment:
    """What is done to frames; None: nothing of that."""

    rate_bits: int | None = None
    """A second; a multiple of 8, as the kernel counts bytes."""
    delay_us: int | None = None
    jitter_us: int | None = None
    """How far the delay differs from frame to frame; only with a delay."""
    loss_ppm: int | None = None
    corrupt_ppm: int | None = None

    def __str__(self) -> str:
        values = ((one.label, one.shown(getattr(self, one.name))) for one in QUANTITIES)
        return ", ".join(f"{label} {value}" for label, value in values if value is not None)

    def to_json(self) -> dict[str, int]:
        """Return it as `from_json` reads it."""
        values = ((one.name, getattr(self, one.name)) for one in QUANTITIES)
        return {name: value for name, value in values if value is not None}

    @classmethod
    def from_json(cls, obj: Mapping[str, Any]) -> Impairment:
        """Read what `to_json` wrote. Raises ValueError, which names the key."""
        values = {}
        for one in QUANTITIES:
            value = obj.get(one.name)
            if value is not None:
                if type(value) is not int or not max(one.least, 1) <= value <= one.most:
                    raise ValueError(f"{one.name} {value!r}")
                values[one.name] = value
        return cls(**values)


@dataclass(frozen=True, slots=True)
class Quantity:
    """One thing that may be said of an impairment."""

    name: str
    label: str
    """Without what stands before it: ``ratchet.``, the link's number, ``local_`` or ``pair_``."""
    units: Mapping[str, int]
    """How many of the small unit each has, the smallest first."""
    least: int
    """Besides 0, which says that there is nothing of it."""
    most: int
    allowed: str

    def read(self, text: str) -> int | None:
        """Read what a person wrote; None for 0. Raises ValueError."""
        lower = text.lower()
        unit = lower.lstrip("0123456789.")
        if len(text) > _LONGEST or not text.isascii() or unit not in self.units:
            raise ValueError(f"{text!a} has no unit that is known")
        whole, dot, fraction = lower.removesuffix(unit).partition(".")
        if not whole.isdigit() or (dot and not fraction.isdigit()):
            raise ValueError(f"{text!a} is no number")
        value, rest = divmod(int(whole + fraction) * self.units[unit], 10 ** len(fraction))
        if rest or (value and not self.least <= value <= self.most):
            raise ValueError(f"{text!a} is out of range")
        return value or None

    def shown(self, value: int | None) -> str | None:
        """Return a value as a person writes it, in the largest unit that has no fraction."""
        if value is None:
            return None
        if self.units is _PERCENT:
            whole, rest = divmod(value, _PPM // 100)
            return f"{whole}.{rest:04}".rstrip("0").rstrip(".") + "%"
        unit = [one for one, size in self.units.items() if value % size == 0][-1]
        return f"{value // self.units[unit]}{unit}"


_RATE = {"bit": 1, "kbit": 10**3, "mbit": 10**6, "gbit": 10**9}
_TIME = {"us": 1, "ms": 10**3, "s": 10**6}
_PERCENT = {"": _PPM // 100, "%": _PPM // 100}
_ALLOWED_TIME = "a time from 1us to 60s with its unit, us, ms or s, as in 10ms, or 0s"
_ALLOWED_SHARE = "a percentage from 0 to 100 with at most four decimals, as in 0.5"

QUANTITIES = (
    Quantity(
        "rate_bits",
        "rate",
        _RATE,
        8 * 10**3,
        10**12,
        "a rate from 8kbit to 1000gbit with its unit, bit, kbit, mbit or gbit, as in 10mbit",
    ),
    Quantity("delay_us", "delay", _TIME, 1, 60 * 10**6, _ALLOWED_TIME),
    Quantity("jitter_us", "jitter", _TIME, 1, 60 * 10**6, f"{_ALLOWED_TIME}, beside a delay"),
    Quantity("loss_ppm", "loss", _PERCENT, 1, _PPM, _ALLOWED_SHARE),
    Quantity("corrupt_ppm", "corrupt", _PERCENT, 1, _PPM, _ALLOWED_SHARE),
)
ENDS = ("local_", "pair_")
LABELS = tuple(f"{end}{quantity.label}" for end in ("", *ENDS) for quantity in QUANTITIES)
