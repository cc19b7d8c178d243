"""Which versions of the specification a plugin's program knows: asked once, and then remembered.

The answer is remembered for the program file as it is now (`statedir.known_versions` reads it, on
the path of every pod), so this module is loaded only when a plugin is new or has been replaced, and
after a reboot.
"""

from __future__ import annotations

from ratchet import books, statedir
from ratchet.cni import invoke, version
from ratchet.cni.errors import DelegateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ratchet.cni.skel import Request
    from ratchet.config import Config

TIMEOUT_S = 10.0


def ask(config: Config, plugin: dict[str, Any], program: str, request: Request) -> list[str]:
    """Return the versions that a plugin answers to VERSION, of those that we know.

    None at all when it answers something else. Raises CniError as the plugin gives it, and
    DelegateError.
    """
    try:
        stamp = statedir.stamp(program)
    except (OSError, ValueError) as exc:  # it was just removed
        raise DelegateError(f"cannot look at {program!a}", str(exc)) from exc
    question = {
        "cniVersion": plugin.get("cniVersion"),
        "type": plugin["type"],
        "name": config.name,
    }
    environ = {**request.environ, "CNI_COMMAND": "VERSION"}
    answer = invoke.run(question, request.path, environ, TIMEOUT_S) or {}
    told = answer.get("supportedVersions")
    known = [one for one in version.SUPPORTED if isinstance(told, list) and one in told]
    try:
        statedir.write_private(
            statedir.versions_path(config.state_dir, program),
            f"{program}\n{stamp}\n{' '.join(known)}".encode("utf-8", "surrogateescape"),
        )
    except OSError:  # it is asked again
        return known
    # As good a moment as any for what is to be told once.
    books.warn_of_others(plugin, config.name)
    return known
