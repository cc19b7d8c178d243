"""Writes Ratchet's network configuration from the one that the node has. Pure.

Two forms are possible. In the *delegate* form one plugin, Ratchet, has the whole configuration of
before as its `delegate`. In the *chained* form it is the last plugin of the list of before. In both
the network keeps its name, because host-local keeps its addresses under it and libcni its results.

The delegate form is written with the suffix `.json`. Runtimes take such files, while programs that
look for the cluster's network in the same folder in order to wrap it or to add to it (Multus,
istio-cni) look for `.conf` and `.conflist` only: they go on finding the configuration of before,
and what they do to it reaches Ratchet as any other change of it does. Were Multus to find Ratchet's
file, it would make it its own delegate, and the two would call each other for ever.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ratchet import __version__
from ratchet.cni import version
from ratchet.config import Config
from ratchet.errors import ConfigError
from ratchetctl.errors import InstallError
from ratchetctl.install.networks import MARK, TYPE, Network

DELEGATE, CHAINED = "delegate", "chained"
FORMS = (DELEGATE, CHAINED)
SUFFIX = {DELEGATE: ".json", CHAINED: ".conflist"}
ANNOTATIONS = "io.kubernetes.cri.pod-annotations"
# In the order in which they are tried. '-' sorts before digits, and they before letters.
_STEMS = ("00-ratchet", "00--ratchet", "0-ratchet", "0--ratchet")
_NOT_SETTABLE = ("name", "type", "cniVersion", "delegate", "capabilities", MARK)


def check_settings(settings: Mapping[str, Any]) -> None:
    """Refuse keys that the installer writes itself, and wrong values. Raises InstallError."""
    for key in _NOT_SETTABLE:
        if key in settings:
            raise InstallError(f"settings: {key}: the installer writes this key itself")
    _check({"name": TYPE, **settings}, "settings")


def check(network: Network, form: str) -> None:
    """Refuse a network that Ratchet cannot be put in front of in this form. Raises InstallError."""
    if network.cni_version is not None and network.cni_version not in version.SUPPORTED:
        raise InstallError(
            f"{network.file}: cniVersion {network.cni_version} is not known to Ratchet,"
            f" which knows {', '.join(version.SUPPORTED)}"
        )
    if form == CHAINED and network.is_multus:
        raise InstallError(
            f"{network.file} is Multus's, which would take a chained configuration for the"
            " cluster's network and call itself: use the delegate form"
        )


def wrap(network: Network, keys: Mapping[str, Any], form: str) -> dict[str, Any]:
    """Return Ratchet's configuration for this network, which `check` lets pass.

    ``keys`` are Ratchet's own, such as etcd_host. Raises InstallError.
    """
    if form == CHAINED:
        return _chained(network, keys)
    ours: dict[str, Any] = {}
    if network.cni_version is not None:
        ours["cniVersion"] = network.cni_version
    ours |= {"name": network.name, "type": TYPE, **plugin(network, keys)}
    ours["capabilities"] = {**_capabilities(network), ANNOTATIONS: True}
    ours["delegate"] = dict(network.found)
    _check(ours, network.file)
    return ours


def _chained(network: Network, keys: Mapping[str, Any]) -> dict[str, Any]:
    own = {"type": TYPE, **plugin(network, keys), "capabilities": {ANNOTATIONS: True}}
    _check({"name": network.name, **own}, network.file)
    if network.is_list:
        return {**network.found, "plugins": [*network.plugins, own]}
    whole = {key: network.found[key] for key in ("cniVersion", "name") if key in network.found}
    return {**whole, "plugins": [*network.plugins, own]}


def plugin(network: Network | None, keys: Mapping[str, Any]) -> dict[str, Any]:
    """Return what both forms have: the keys, and the mark, which says what was wrapped by whom."""
    source = None if network is None else network.file
    return {**keys, MARK: {"from": source, "version": __version__}}


def _capabilities(network: Network) -> dict[str, Any]:
    """Return what the plugins ask the runtime for: the delegate form asks in their place."""
    asked: dict[str, Any] = {}
    for one in network.plugins:
        own = one.get("capabilities")
        asked |= {key: True for key, value in (own or {}).items() if value is True}
    return asked


def _check(ours: Mapping[str, Any], where: str) -> None:
    try:
        Config.parse(ours)
    except ConfigError as error:
        text = ": ".join(part for part in (error.msg, error.details) if part)
        raise InstallError(f"{where}: {text}") from error


def name_before(files: Iterable[str], form: str) -> str:
    """Return a name for Ratchet's file that comes before all of these. Raises InstallError."""
    first = min(map(str.encode, files), default=None)
    for stem in _STEMS:
        name = stem + SUFFIX[form]
        if first is None or name.encode() < first:
            return name
    raise InstallError(
        f"no name for Ratchet's configuration comes before {min(files)}: rename that file"
    )
