"""Which versions of the specification a plugin's program knows: asked once, and then remembered.

The answer is remembered for the program file as it is now (`statedir.known_versions` reads it, on
the path of every pod), so this module is loaded only when a plugin is new or has been replaced.
"""

from __future__ import annotations

from ratchet import statedir
from ratchet.cni import invoke, version

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

TIMEOUT_S = 10.0


def ask(
    state_dir: str, program: str, question: dict[str, Any], path: str, environ: Mapping[str, str]
) -> list[str]:
    """Return the versions that a plugin answers to VERSION, of those that we know.

    None at all when it answers something else. Raises CniError as the plugin gives it.
    """
    stamp = statedir.stamp(program)
    environ = {**environ, "CNI_COMMAND": "VERSION"}
    answer = invoke.run(question, path, environ, TIMEOUT_S) or {}
    told = answer.get("supportedVersions")
    known = [one for one in version.SUPPORTED if isinstance(told, list) and one in told]
    try:  # noqa: SIM105 - contextlib would cost a pod's ADD 2 ms
        statedir.write_private(
            statedir.versions_path(state_dir, program),
            f"{program}\n{stamp}\n{' '.join(known)}".encode("utf-8", "surrogateescape"),
        )
    except OSError:  # it is asked again
        pass
    return known
