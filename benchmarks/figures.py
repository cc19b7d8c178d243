"""What was measured: series of values, their statistics, and the reference of each."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Series:
    """The values of one figure, in one unit."""

    name: str
    text: str
    unit: str
    values: tuple[float, ...]
    reference: str | None  # name of the figure that this one is a multiple of

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def p95(self) -> float:
        """The 95th percentile: with few values the largest."""
        ordered = sorted(self.values)
        return ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]

    @property
    def least(self) -> float:
        return min(self.values)


@dataclass(slots=True)
class Results:
    """All figures of one run."""

    about: dict[str, Any] = field(default_factory=dict)
    series: dict[str, Series] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def add(
        self,
        name: str,
        text: str,
        unit: str,
        values: Sequence[float],
        reference: str | None = None,
    ) -> None:
        """Take up a figure; one without values is left out."""
        if values:
            self.series[name] = Series(name, text, unit, tuple(values), reference)

    def problem(self, text: str) -> None:
        """Note what did not go as it should: links missing, a plugin that failed."""
        self.problems.append(text)

    def ratio(self, name: str) -> float | None:
        """Return the median as a multiple of the reference's; None without one."""
        series = self.series.get(name)
        if series is None or series.reference is None:
            return None
        reference = self.series.get(series.reference)
        if reference is None or not reference.median:
            return None
        return series.median / reference.median

    def median(self, name: str) -> float | None:
        series = self.series.get(name)
        return None if series is None else series.median

    def to_json(self) -> dict[str, Any]:
        return {
            "about": self.about,
            "figures": {
                name: {
                    "text": series.text,
                    "unit": series.unit,
                    "median": series.median,
                    "p95": series.p95,
                    "min": series.least,
                    "n": len(series.values),
                    "reference": series.reference,
                    "ratio": self.ratio(name),
                    "values": list(series.values),
                }
                for name, series in self.series.items()
            },
            "problems": self.problems,
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Results:
        """Read what `to_json` gave."""
        results = cls(about=dict(found["about"]), problems=list(found["problems"]))
        for name, one in found["figures"].items():
            results.add(name, one["text"], one["unit"], one["values"], one["reference"])
        return results

    def write(self, path: str) -> None:
        with open(path, "w", encoding="utf-8") as file:
            json.dump(self.to_json(), file, indent=1)
            file.write("\n")


def in_turns(count: int, subjects: Mapping[str, Callable[[], T]]) -> dict[str, list[T]]:
    """Call every subject `count` times, in turns, each time beginning with another one.

    What the machine does besides then touches all of them alike.
    """
    names = list(subjects)
    found: dict[str, list[T]] = {name: [] for name in names}
    for number in range(count):
        start = number % len(names)
        for name in names[start:] + names[:start]:
            found[name].append(subjects[name]())
    return found


def in_ms(seconds: Iterable[float]) -> list[float]:
    return [value * 1e3 for value in seconds]
