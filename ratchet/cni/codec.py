"""JSON in and out, without the standard library's ``json`` as long as all goes well.

Importing ``json`` takes 5 to 10 ms, half of what a pass-through takes in all, and nearly all of
that is ``re``, of which the package compiles three patterns. The scanner and the encoder
themselves are the C module ``_json``. This module uses them directly in the way that
``json.decoder`` and ``json.encoder`` do, and turns to ``json`` whenever anything is not as
expected: no ``_json`` (another interpreter), another signature, or text that is not JSON, where
the stdlib has the better error message. So the worst that a changed ``_json`` can do is to make a
pod wait 5 ms more.

The language is that of RFC 8259: no NaN or Infinity, neither read nor written.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

try:
    import _json

    _make_scanner: Callable[..., Any] | None = _json.make_scanner
    _make_encoder: Callable[..., Any] | None = _json.make_encoder
    _quote: Callable[[str], str] | None = _json.encode_basestring_ascii
except (ImportError, AttributeError):
    _make_scanner = _make_encoder = _quote = None

# What is read is looked at by recursion later, which has to have an end before Python's own; a
# network configuration is ten levels deep.
DEEPEST = 100

_SPACES = " \t\n\r"


def decode(data: bytes | str) -> Any:
    """Return what the text says. Raises ValueError (also for nesting without end)."""
    text = data if isinstance(data, str) else data.decode("utf-8")
    try:
        found = _scan(text)
        if found is None:
            found = (_slow_decode(text),)
    except RecursionError as exc:
        raise ValueError("nested too deeply") from exc
    if text.count("[") + text.count("{") > DEEPEST and _is_too_deep(found[0]):
        raise ValueError("nested too deeply")
    return found[0]


def encode(value: Any) -> bytes:
    """Return the value as JSON on one line. Raises ValueError or TypeError if JSON cannot."""
    if _make_encoder is not None:
        try:
            encoder = _make_encoder({}, _refuse, _quote, None, ": ", ", ", False, False, False)
            return "".join(encoder(value, 0)).encode("ascii")
        except (ValueError, TypeError):
            pass  # either the value or _json is strange; json knows which
    import json  # noqa: PLC0415 - the slow path

    return json.dumps(value, allow_nan=False).encode("ascii")


class _Context:
    """What the C scanner wants to know of its decoder, as in ``json.JSONDecoder``."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_int = int

    @staticmethod
    def parse_float(text: str) -> float:
        return _finite(text)

    @staticmethod
    def parse_constant(text: str) -> float:
        raise ValueError(f"{text} is not JSON")


def _scan(text: str) -> tuple[Any] | None:
    """Return the value in a tuple; None when this is a matter for ``json``."""
    if _make_scanner is None:
        return None
    trimmed = text.strip(_SPACES)
    try:
        value, end = _make_scanner(_Context)(trimmed, 0)
    except (StopIteration, ValueError, TypeError, AttributeError):
        return None
    except SystemError:
        # Before Python 3.12 the scanner only finds its own exception when json.decoder is loaded,
        # and fails without one otherwise. Only text that is not JSON comes here.
        return None
    return (value,) if end == len(trimmed) else None


def _slow_decode(text: str) -> Any:
    import json  # noqa: PLC0415 - the slow path

    return json.loads(
        text, parse_float=_Context.parse_float, parse_constant=_Context.parse_constant
    )


def _is_too_deep(value: Any) -> bool:
    """Tell whether a value is nested too deeply, level by level and without recursion."""
    level = [value]
    for _ in range(DEEPEST + 1):
        level = [
            inner
            for one in level
            if isinstance(one, (dict, list))
            for inner in (one.values() if isinstance(one, dict) else one)
        ]
        if not level:
            return False
    return True


def _finite(text: str) -> float:
    value = float(text)
    if value - value != 0:
        raise ValueError(f"{text} is too large")
    return value


def _refuse(value: object) -> Any:
    raise TypeError(f"{type(value).__name__} is not JSON")
