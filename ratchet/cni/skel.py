"""The request that a runtime makes of a plugin, and the one answer to it."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


class Request:
    """One call of the plugin, its environment and its configuration checked.

    Written by hand, without ``dataclasses``: that module would cost a pod's ADD 8 ms.
    """

    __slots__ = (
        "args",
        "command",
        "config",
        "config_bytes",
        "container_id",
        "environ",
        "ifname",
        "netns",
        "path",
    )

    def __init__(
        self,
        command: str,
        *,
        container_id: str = "",
        netns: str = "",
        ifname: str = "",
        args: str = "",
        path: str = "",
        environ: Mapping[str, str] | None = None,
        config_bytes: bytes = b"",
        config: dict[str, Any] | None = None,
    ) -> None:
        self.command = command
        self.container_id = container_id
        self.netns = netns
        self.ifname = ifname
        self.args = args
        self.path = path
        self.environ: Mapping[str, str] = {} if environ is None else environ
        self.config_bytes = config_bytes
        self.config: dict[str, Any] = {} if config is None else config
