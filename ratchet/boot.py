"""The boot network: the plugins that give an eligible pod what it has besides its links.

They are run as a runtime would run them, and their results are looked into, so that the pod's
answer has an address. This module is apart because DEL, CHECK and GC run them from a record, with
the configuration, CNI_ARGS and CNI_PATH of the ADD, whatever the administrator has changed since.
"""

from __future__ import annotations

from ratchet import log
from ratchet import netns as namespaces
from ratchet.attachments import Attachment, Boot
from ratchet.cni import config as cni_config
from ratchet.cni import invoke, version
from ratchet.cni import result as cni_result
from ratchet.cni.errors import INCOMPATIBLE_VERSION, CniError, DelegateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ratchet.cni.skel import Request
    from ratchet.config import Config

# A runtime gives an ADD 60 to 120 seconds: enough is left to undo it.
ADD_TIMEOUT_S = 45.0
DEL_TIMEOUT_S = 30.0
CHECK_TIMEOUT_S = 30.0
# From 0.3.0 results say on which interface an address is, and every plugin since 2017 speaks
# 0.3.1. A boot network that states no version gets no lower one.
LEAST_VERSION = "0.3.1"
# What a plugin is offered that does not know our version; a refusal has changed nothing.
LOWER_VERSIONS = ("1.0.0", "0.4.0", "0.3.1")


def of(config: Config, request: Request) -> Boot | None:
    """Return how to attach the boot network; None when there is none (nor a delegate)."""
    source = config.boot_network or config.delegate
    if source is None:
        return None
    ours = dict(request.config)
    if not version.at_least(config.cni_version, LEAST_VERSION):
        ours["cniVersion"] = LEAST_VERSION
    plugins = tuple(
        cni_config.with_result(cni_config.for_delegate(plugin, ours), None)
        for plugin in cni_config.plugins_of(source)
    )
    return Boot(plugins, request.args, request.path)


def require(boot: Boot | None, request: Request) -> None:
    """Check that every plugin is there before anything is changed. Raises DelegateError."""
    for plugin in boot.plugins if boot is not None else ():
        invoke.find(plugin["type"], request.path)


def add(boot: Boot, request: Request) -> tuple[Boot, dict[str, Any]]:
    """Attach, in order, and return the last plugin's result, with what was run.

    Raises CniError as the plugin gives it, and DelegateError.
    """
    result = request.config.get("prevResult")
    ran = []
    for plugin in boot.plugins:
        used, result = _run(plugin, result, request.environ, request.path, ADD_TIMEOUT_S)
        if result is None:
            raise DelegateError(f"plugin {plugin['type']} printed no result")
        ran.append(used)
    try:
        cni_result.parse(result)
    except ValueError as exc:
        kind = boot.plugins[-1]["type"]
        raise DelegateError(
            f"plugin {kind} printed something else than a result", str(exc)
        ) from exc
    return Boot(tuple(ran), boot.args, boot.path), result or {}


def delete(attachment: Attachment, request: Request, netns: str) -> None:
    """Detach, in reverse order, past errors; the first one is raised at the end.

    ``netns`` is "" when the namespace is gone. The plugins get none either where another one stands
    at its path by now: they would take away what is another pod's, or the node's.
    """
    boot = attachment.boot
    if boot is None:
        return
    own = namespaces.of_pod(netns, attachment.netns_identity)
    if own != netns:
        log.warning(
            "another network namespace stands at the pod's path, so it is left alone",
            netns=netns,
            pod=attachment.pod_in_logs,
            container=attachment.container_id,
        )
    environ = _environ(attachment, boot, request, "DEL", own)
    errors = []
    for plugin in reversed(boot.plugins):
        previous = attachment.result if version.at_least(_version(plugin), "0.4.0") else None
        try:
            _run(plugin, previous, environ, environ["CNI_PATH"], DEL_TIMEOUT_S)
        except CniError as exc:
            log.error(
                "the boot network's DEL failed",
                plugin=plugin["type"],
                container=attachment.container_id,
                pod=attachment.pod_in_logs,
                error=exc,
            )
            errors.append(exc)
    if errors:
        raise errors[0]


def check(attachment: Attachment, request: Request, result: dict[str, Any] | None) -> None:
    """CHECK each plugin that knows the operation, with what it is to find.

    Raises CniError as the plugin gives it.
    """
    boot = attachment.boot
    if boot is None:
        return
    environ = _environ(attachment, boot, request, "CHECK", request.netns)
    for plugin in boot.plugins:
        if version.allows(_version(plugin), "CHECK"):
            _run(plugin, result, environ, environ["CNI_PATH"], CHECK_TIMEOUT_S)


def _run(
    plugin: dict[str, Any],
    previous: dict[str, Any] | None,
    environ: Any,
    path: str,
    timeout_s: float,
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Run one plugin and return its configuration, in the version that it took, and its result."""
    for lower in (None, *LOWER_VERSIONS):
        offered = plugin if lower is None else {**plugin, "cniVersion": lower}
        if lower is not None and version.at_least(lower, _version(plugin)):
            continue
        try:
            with_previous = cni_config.with_result(offered, _in_version(previous, offered))
            return offered, invoke.run(with_previous, path, environ, timeout_s)
        except CniError as exc:
            if exc.code != INCOMPATIBLE_VERSION:
                raise
            refused = exc
    raise CniError(refused.code, f"boot network {plugin['type']}: {refused.msg}", refused.details)


def _in_version(previous: dict[str, Any] | None, plugin: dict[str, Any]) -> dict[str, Any] | None:
    if previous is None:
        return None
    try:
        return cni_result.convert(previous, _version(plugin))
    except ValueError as exc:
        raise DelegateError("prevResult is not a result", str(exc)) from exc


def _version(plugin: dict[str, Any]) -> str:
    stated = plugin.get("cniVersion")
    return stated if isinstance(stated, str) else ""


def _environ(
    attachment: Attachment, boot: Boot, request: Request, command: str, netns: str
) -> dict[str, str]:
    """Return the environment of the ADD, for another operation."""
    folders = dict.fromkeys([*boot.path.split(":"), *request.path.split(":")])
    return {
        **request.environ,
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": attachment.container_id,
        "CNI_NETNS": netns,
        "CNI_IFNAME": attachment.ifname,
        "CNI_ARGS": boot.args,
        "CNI_PATH": ":".join(folder for folder in folders if folder),
    }
