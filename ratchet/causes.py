"""What lies beneath an exception: libraries wrap the errors of the kernel and of TLS."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


def innermost(error: BaseException, *kinds: type[BaseException]) -> BaseException | None:
    """Return the innermost cause of these kinds; None when there is none."""
    found = None
    for cause in _all(error):
        if isinstance(cause, kinds):
            found = cause
    return found


def _all(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    waiting: list[object] = [error]
    while waiting:
        cause = waiting.pop(0)
        if not isinstance(cause, BaseException) or id(cause) in seen:
            continue
        seen.add(id(cause))
        yield cause
        waiting += [getattr(cause, "reason", None), *cause.args, cause.__cause__, cause.__context__]
