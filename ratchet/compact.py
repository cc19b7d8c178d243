"""The annotation `ratchet.links`: a list with one entry a link, in JSON or YAML.

    ratchet.links: |
      - {ifname: eth1, address: 10.0.0.1/31, pair: r2, pair_ifname: eth1, pair_address: 10.0.0.2/31}

Here the text becomes entries, each with its fields as text, exactly as they are written: what they
mean is the grammar's (`ratchet.labels`). JSON is YAML as well, but costs nothing to read. PyYAML
takes 15 ms to load, and is loaded for what is not JSON only. It never makes anything but text of a
scalar here, so no MAC address becomes a number and no name a truth value.
"""

from __future__ import annotations

from ratchet.cni import codec
from ratchet.errors import LabelError, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ANNOTATION = "ratchet.links"
# Reading YAML takes a second for so much; JSON a hundredth of that.
MOST_YAML_CHARS = 1 << 16
_ALLOWED = (
    "a list in JSON or YAML with one entry a link, as in [{ifname: in1, pair: b, pair_ifname: in2}]"
)


def entries(text: str) -> list[dict[str, str]]:
    """Return the fields of each entry. Raises `LabelError`."""
    try:
        found = codec.decode(text)
    except ValueError:
        found = _yaml(text)
    if not isinstance(found, list):
        raise LabelError(ANNOTATION, text, _ALLOWED)
    return [_entry(number, one) for number, one in enumerate(found, 1)]


def called(number: int, name: object) -> str:
    """Return what an error calls a field, whose name may be anything."""
    is_plain = isinstance(name, str) and name.isascii() and name.isprintable()
    return f"{prefix(number)}{name if is_plain else shown(name)}"


def prefix(number: int) -> str:
    """Return what stands before a field's name in an error."""
    return f"{ANNOTATION} entry {number}, "


def _entry(number: int, found: Any) -> dict[str, str]:
    if not isinstance(found, dict):
        raise LabelError(f"{ANNOTATION} entry {number}", str(found), "fields and their values")
    entry = {}
    for name, value in found.items():
        if isinstance(value, (bool, dict, list)) or not isinstance(name, str):
            raise LabelError(called(number, name), str(value), "text or a number")
        if value is not None:
            entry[name] = str(value)
    return entry


def _yaml(text: str) -> Any:
    if len(text) > MOST_YAML_CHARS:
        raise LabelError(ANNOTATION, text, f"at most {MOST_YAML_CHARS} characters, or JSON")
    import yaml  # noqa: PLC0415 - 15 ms, and not needed for JSON

    # Not the faster CBaseLoader, which crashes the process on a hundred thousand brackets.
    class Loader(yaml.BaseLoader):
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            names = [key.value for key, _ in node.value]
            if len({str(name) for name in names}) != len(names):
                raise yaml.constructor.ConstructorError(
                    "a field", node.start_mark, "stands there twice", node.start_mark
                )
            made: dict[Any, Any] = super().construct_mapping(node, deep)
            return made

    try:
        return yaml.load(text, Loader)  # noqa: S506 - it makes text and nothing else
    except (yaml.YAMLError, RecursionError, ValueError, TypeError) as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or "nested too deeply"
        where = f" (line {mark.line + 1})" if mark else ""
        allowed = f"{_ALLOWED}; this is no YAML{where}: {ascii(problem)[1:-1]}"
        raise LabelError(ANNOTATION, text, allowed) from error
