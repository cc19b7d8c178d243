"""How a vendor's interface names become the kernel's: a pattern, and what it becomes. Pure.

In what it becomes, `{...}` holds groups of the pattern ($1), which may be counted with (`{$1+1}`,
`{4*$1+$2}`), and `[...]` is left out where a group in it has matched nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_OPTIONAL = re.compile(r"\[([^\[\]]*)\]")
_PLACE = re.compile(r"\{([^{}]*)\}")
_TERM = re.compile(
    r"(?P<sign>[+-]?)(?:(?P<times>\d{1,4})\*)?(?:\$(?P<group>\d)|(?P<number>\d{1,4}))"
)


@dataclass(frozen=True, slots=True)
class Renaming:
    """One rule of a kind."""

    pattern: re.Pattern[str]
    becomes: str

    @classmethod
    def parse(cls, name: str, becomes: str) -> Renaming:
        """Read a rule. Raises ValueError that says what is wrong."""
        try:
            pattern = re.compile(name, re.IGNORECASE)
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(f"{name!a} is no pattern: {error}") from error
        rest = _OPTIONAL.sub(r"\1", becomes)
        for place in _PLACE.findall(rest):
            terms = list(_TERM.finditer(place))
            if not terms or "".join(term[0] for term in terms) != place:
                raise ValueError(
                    f"{{{place}}} is no sum of groups and numbers: write {{$1}} or {{4*$1+1}}"
                )
            for term in terms:
                if term["group"] and not 1 <= int(term["group"]) <= pattern.groups:
                    raise ValueError(f"${term['group']}: the pattern has {pattern.groups} groups")
        if set("{}[]") & set(_PLACE.sub("", rest)):
            raise ValueError(f"{becomes!a} has a bracket without its partner")
        return cls(pattern, becomes)

    def apply(self, title: str) -> str | None:
        """Return the kernel's name; None where the rule is not for this name."""
        match = self.pattern.fullmatch(title)
        if match is None:
            return None
        try:
            return _PLACE.sub(
                lambda place: _value(place[1], match),
                _OPTIONAL.sub(lambda part: _optional(part[1], match), self.becomes),
            )
        except ValueError:
            return None


def _optional(text: str, match: re.Match[str]) -> str:
    groups = [int(term["group"]) for term in _TERM.finditer(text) if term["group"]]
    return text if all(match[one] is not None for one in groups) else ""


def _value(place: str, match: re.Match[str]) -> str:
    if re.fullmatch(r"\$\d", place):
        return match[int(place[1])] or ""
    total = 0
    for term in _TERM.finditer(place):
        value = int(match[int(term["group"])] if term["group"] else term["number"])
        total += (-1 if term["sign"] == "-" else 1) * int(term["times"] or 1) * value
    if total < 0:
        raise ValueError(place)
    return str(total)
