"""The delegate: its plugins, each spoken to in a version of the specification that it knows.

Which plugins take part in an operation, with which configuration, and what their answers are in our
version. When a delegate is run is decided in ``ratchet.plugin``. It is on the path of every pod;
what only a plugin that is new or of another version needs is imported where it is needed.
"""

from __future__ import annotations

from ratchet import log, statedir
from ratchet.cni import config as cni_config
from ratchet.cni import invoke, version
from ratchet.cni.errors import INCOMPATIBLE_VERSION, CniError, DelegateError
from ratchet.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ratchet.cni.skel import Request
    from ratchet.config import Config

ASKED_FROM = "0.2.0"  # which brought VERSION


def plugins(
    config: Config,
    delegate: dict[str, Any] | None,
    request: Request,
    errors: list[CniError] | None = None,
    *,
    lower: bool = False,
) -> list[dict[str, Any]]:
    """Return the configurations of a delegate's plugins that know the operation.

    ``lower`` allows a lower version also where a plugin's configuration states one. What is wrong
    with a plugin is added to ``errors``, or raised where there are none.
    """
    if delegate is None or cni_config.forbids(delegate, request.command):
        return []
    found = []
    for own in cni_config.plugins_of(delegate):
        plugin = cni_config.for_delegate(own, request.config)
        try:
            spoken = _version(config, request, plugin, lower=lower or not own.get("cniVersion"))
        except CniError as exc:
            if errors is None:
                raise
            errors.append(exc)
            continue
        if spoken is not None and version.allows(spoken, request.command):
            if spoken:
                plugin["cniVersion"] = spoken
            found.append(_with_its_previous(plugin, request))
    return found


def plugins_that_know(
    config: Config, request: Request, errors: list[CniError]
) -> list[dict[str, Any]]:
    """Return the plugins that know GC and STATUS; add what kept others from saying so."""
    found = plugins(config, config.delegate, request, errors)
    if config.use_labels:
        # A boot network is attached in any version that it knows.
        boot_network = plugins(config, config.boot_network, request, errors, lower=True)
        found += [plugin for plugin in boot_network if plugin not in found]
    return found


def run(plugin: dict[str, Any], request: Request) -> dict[str, Any] | None:
    """Run a delegate. Its error goes up as it is, but for one that would seem to be ours."""
    try:
        return invoke.run(plugin, request.path, request.environ)
    except CniError as exc:
        if exc.code != INCOMPATIBLE_VERSION:
            raise
        raise CniError(exc.code, f"delegate {plugin['type']}: {exc.msg}", exc.details) from exc


def answer(
    plugin: dict[str, Any], result: dict[str, Any] | None, to_version: str | None, request: Request
) -> dict[str, Any]:
    """Return what a plugin answered an ADD, in this version. Raises DelegateError."""
    if result is None:
        raise DelegateError(f"plugin {plugin['type']} printed no result")
    if version.same(result.get("cniVersion"), to_version):
        return result
    from ratchet.cni.result import convert  # noqa: PLC0415 - only where versions differ

    try:
        return convert(result, to_version or "", request.ifname)
    except ValueError as exc:
        what = f"plugin {plugin['type']} printed something else than a result"
        raise DelegateError(what, str(exc)) from exc


def previous(config: Config, request: Request) -> dict[str, Any] | None:
    """Return prevResult in our version: what a chained plugin answers that has nothing to do."""
    given = request.config.get("prevResult")
    if given is None:
        allowed = "a plugin's configuration, unless ratchet is chained after another plugin"
        raise ConfigError("delegate", None, allowed)
    if isinstance(given, dict) and given.get("cniVersion", "") == config.cni_version:
        return given
    from ratchet.cni.result import convert  # noqa: PLC0415 - only where versions differ

    try:
        return convert(given, config.cni_version, request.ifname)
    except ValueError as exc:
        raise ConfigError("prevResult", given, f"a result ({exc})") from exc


def _version(
    config: Config, request: Request, plugin: dict[str, Any], *, lower: bool
) -> str | None:
    """Return the version in which a plugin is spoken to: the one stated, or the next that it knows.

    None where it is not known whether it knows an operation that not every plugin has. Raises
    CniError.
    """
    stated: str = plugin.get("cniVersion") or ""
    if not version.at_least(stated, ASKED_FROM):
        return stated
    if config.replaceable is not None:
        return stated
    program = invoke.find(plugin["type"], request.path)
    known = statedir.known_versions(config.state_dir, program)
    is_rare = request.command in ("GC", "STATUS")
    if known is None:
        from ratchet import plugin_versions  # noqa: PLC0415 - for a plugin that is new

        try:
            known = plugin_versions.ask(config, plugin, program, request)
        except CniError:
            if is_rare:
                raise
            known = []
    if not known and is_rare:
        log.debug("not sent to a plugin that does not know it", plugin=plugin["type"])
        return None
    if not known or stated in known:
        return stated
    # A DEL that fails is repeated for ever: the plugin itself is to say so.
    if not lower and request.command == "DEL":
        return stated
    offered = [one for one in known if not version.at_least(one, stated)] if lower else []
    if not offered:
        raise CniError(
            INCOMPATIBLE_VERSION,
            f"delegate {plugin['type']} does not know cniVersion {stated}",
            f"{program} knows {', '.join(known)}",
        )
    return offered[-1]


def _with_its_previous(plugin: dict[str, Any], request: Request) -> dict[str, Any]:
    """Return a plugin's configuration with prevResult in its version: it refuses any other."""
    previous, stated = plugin.get("prevResult"), plugin.get("cniVersion")
    if not isinstance(previous, dict) or version.same(previous.get("cniVersion"), stated):
        return plugin
    from ratchet.cni.result import convert  # noqa: PLC0415 - only where versions differ

    try:
        return cni_config.with_result(plugin, convert(previous, stated or "", request.ifname))
    except ValueError:  # for the plugin to judge, which at a DEL may not even look at it
        return plugin
