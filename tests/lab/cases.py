"""Several cases of one promise, one after the other in one test, with one start of the programs.

What starts a child costs a sixth of a second of a processor, whatever is tried with it. `each_of`
is for cases that differ in their data alone, and not in what a child is to know when it starts:
where that matters, `pytest.mark.parametrize` gives each case nodes on which nothing has happened
yet.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any

from tests.lab.cluster import Cluster

Test = Callable[..., None]


def each_of(names: str | tuple[str, ...], cases: Iterable[Any]) -> Callable[[Test], Test]:
    """Call a test for each case in turn, and clear its cluster in between.

    It is written as `pytest.mark.parametrize`, and several of them make a product as well. The
    output of a test that fails says in which case it was.
    """
    wanted = (names,) if isinstance(names, str) else names
    values = [_values(case, len(wanted)) for case in cases]

    def decorate(test: Test) -> Test:
        signature = inspect.signature(test)
        fixtures = [one for name, one in signature.parameters.items() if name not in wanted]

        @functools.wraps(test)
        def in_turn(**given: Any) -> None:
            cluster: Cluster = given["cluster"]
            for number, case in enumerate(values):
                if number:
                    cluster.clear()
                print(
                    "case:",
                    *(f"{name}={value!r}" for name, value in zip(wanted, case, strict=True)),
                )
                test(**given, **dict(zip(wanted, case, strict=True)))

        in_turn.__signature__ = signature.replace(parameters=fixtures)  # type: ignore[attr-defined]
        return in_turn

    return decorate


def _values(case: Any, count: int) -> tuple[Any, ...]:
    """Return the values of a case, which may be a `pytest.param`."""
    inside = getattr(case, "values", None)
    if isinstance(inside, tuple):
        return inside
    return tuple(case) if count > 1 else (case,)
