"""The program `ratchet-child`. Parents start it; a service manager may, with `--stay`.

Who has the socket and the lock becomes the supervisor, which stays small: what serves is imported
in the child that it starts.
"""

from __future__ import annotations

import gc
import sys

from ratchet_child.supervision import supervisor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ratchet_child.supervision.keeper import Keeper


def main(argv: list[str] | None = None) -> int:
    """Run the program; the exit status."""
    arguments = sys.argv[1:] if argv is None else argv
    if supervisor.is_asked_for(arguments):
        return supervisor.main(arguments, _serve)
    from ratchet_child import command  # noqa: PLC0415 - not in the supervisor

    return command.main(arguments)


def _serve(arguments: Sequence[str], listener: int, keeper: Keeper) -> int:
    # An import leaves next to no garbage, and looking for it takes a twelfth of the child's start.
    gc.disable()
    from ratchet_child import serving  # noqa: PLC0415 - not in the supervisor

    gc.freeze()
    gc.enable()
    return serving.serve(arguments, listener, keeper)


if __name__ == "__main__":
    sys.exit(main())
