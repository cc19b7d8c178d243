"""Noticing that another program was installed in the place of this one.

The new program is tried before it is let in: a node is not to lose its child to a program that does
not run on it.
"""

from __future__ import annotations

import errno

from ratchet import log
from ratchet_child.supervision import program
from ratchet_child.supervision.helpers import Helpers, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


class Update:
    """Watches over the file of the program that runs."""

    def __init__(self, helpers: Helpers) -> None:
        self._helpers = helpers
        self._program = program.path()
        self._running = program.identity(self._program)
        self._approved: program.Identity | None = None  # a new program that runs
        self._refused: program.Identity | None = None  # one that does not

    @property
    def is_ready(self) -> bool:
        """Whether there is a new program, and it runs."""
        return self._approved is not None and self._approved == self._installed()

    def look(self, when_ready: Callable[[], None]) -> None:
        """Try what was installed since, if anything; `when_ready` is called when it runs."""
        found = self._installed()
        if found is None or self._helpers:
            return

        def done(status: int) -> None:
            if status != 0:
                self._refuse(found, shown(status) or "")
                return
            self._approved = found
            when_ready()

        try:
            self._helpers.start([*program.command(self._program), "--help"], done)
        except OSError as error:
            if error.errno != errno.ETXTBSY:  # it is still being written
                self._refuse(found, error.strerror or repr(error))

    def execute(
        self, arguments: Sequence[str], listener: int, lock: int, kept: Mapping[str, int]
    ) -> None:
        """Become the new program. Returns when that is not possible."""
        log.info("becoming the program that was installed", program=self._program)
        try:
            program.execute(self._program, arguments, listener, lock, kept)
        except OSError as error:
            self._refuse(self._approved, error.strerror or repr(error))

    def _installed(self) -> program.Identity | None:
        """Return the identity of another program in the place of this one, unless it was tried."""
        found = program.identity(self._program)
        return None if found in (self._running, self._refused) else found

    def _refuse(self, found: program.Identity | None, why: str) -> None:
        self._refused = found
        log.error("the program that was installed does not run", program=self._program, error=why)
