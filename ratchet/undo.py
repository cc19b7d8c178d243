"""What has to be undone if an operation fails half way.

If its caller is gone, nothing is, as when the parent is killed: the runtime's DEL does it.
"""

from __future__ import annotations

from ratchet.cni.invoke import CallerGoneError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Undo:
    """Steps to be undone, last first, if the block fails: contextlib.ExitStack costs 5 ms."""

    __slots__ = ("_steps",)

    def __init__(self) -> None:
        self._steps: list[tuple[Callable[..., object], tuple[object, ...]]] = []

    def callback(self, step: Callable[..., object], *args: object) -> None:
        """Have a step called if the block fails. The step must not raise."""
        self._steps.append((step, args))

    def drop(self) -> None:
        """Forget all calls: nothing is to be undone any more."""
        self._steps.clear()

    def __enter__(self) -> Undo:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and issubclass(kind, CallerGoneError):
            self.drop()
        while self._steps:
            step, args = self._steps.pop()
            step(*args)
