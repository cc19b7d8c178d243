"""The steps that put Ratchet onto a node and take it away, each of which may be the last one.

The order is what makes that safe. Installing: first the programs, then what they need to know, and
only then the configuration that has the runtime use them. Taking away: the configuration first.
All steps look at what is there, so that any of them may run again, by this version or another.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ratchetctl.errors import InstallError
from ratchetctl.install import credentials, files, networks, programs, state, wrapping
from ratchetctl.install.credentials import ServiceAccount
from ratchetctl.install.networks import Network, NotANetworkError

AGENT = "agent"
FORMS = (*wrapping.FORMS, AGENT)
# For the child: our plugin configuration alone, under a name that stays.
CHILD_CONFIG = "ratchet.conf"
CILIUM_SUFFIX = ".cilium_bak"
_STATE_DIRS = "/run/ratchet"
_DEFAULT_NAME = "ratchet"


@dataclass(frozen=True, slots=True)
class Site:
    """What the installer was told of the node and of the cluster."""

    conf_dir: str
    bin_dir: str
    form: str = wrapping.DELEGATE
    settings_file: str | None = None
    node_address: str | None = None
    etcd: tuple[str, int] | None = None
    etcd_certificates: str | None = None
    account: ServiceAccount | None = None

    @property
    def folder(self) -> str:
        """Where everything lies that the configuration names."""
        return os.path.join(self.conf_dir, credentials.FOLDER)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the configuration."""

    changed: bool
    text: str


@dataclass(frozen=True, slots=True)
class _Found:
    """What is in the runtime's folder."""

    candidates: tuple[str, ...]  # every name at which a runtime looks, but ours
    ours: tuple[Network, ...]
    first: Network | None
    broken: tuple[str, ...]  # why those before the first are none


class NoNetworkError(InstallError):
    """The folder holds no network configuration that Ratchet could hand pods to."""


def install_programs(site: Site, source: str, attempt: Callable[[str], None] | None = None) -> bool:
    """Install the programs, if they run; whether they changed."""
    with _locked(site), files.explained("install the programs"):
        return programs.install(source, site.bin_dir, attempt)


def configure(site: Site, token: str | None = None) -> Outcome:
    """Have the node's configuration be Ratchet's, as the settings and the network are now.

    Safe to call again: nothing is written that is there already. Raises InstallError, and
    NoNetworkError, which leaves everything as it is.
    """
    with _locked(site), files.explained("write the network configuration"):
        files.remove_leftovers(site.conf_dir)
        settings = _settings(site)
        if site.form == AGENT:
            return _configure_agent(site, settings, token)
        found = _look(site.conf_dir)
        if found.first is None:
            raise NoNetworkError(_no_network(site.conf_dir, found))
        if found.first.own_ratchet is not None:
            return _leave(site, found, found.first, found.first.own_ratchet)
        return _configure(site, found, found.first, settings, token)


def uninstall(site: Site, root: str | None = None, wait_s: float = 0.0) -> None:
    """Take away all that was installed, the configuration first. Safe to call twice.

    With the node's root directory, what the child has kept goes as well, unless pods are attached,
    or the child has not ended within `wait_s`.
    """
    with _locked(site), files.explained("take Ratchet away"):
        unconfigure(site.conf_dir)
        state_dir = _kept_state_dir(site)
        if root is not None and state_dir is not None:
            state.forget(state_dir, root, wait_s)
        files.remove_tree(site.folder)
        if os.path.isdir(site.bin_dir):
            programs.uninstall(site.bin_dir)


def unconfigure(conf_dir: str) -> bool:
    """Have the runtime use the configuration of before; whether ours was there."""
    if not os.path.isdir(conf_dir):
        return False
    ours = [network.file for network in _look(conf_dir).ours] + pushed_aside(conf_dir)
    for name in ours:
        files.remove(os.path.join(conf_dir, name))
    files.remove_leftovers(conf_dir)
    files.sync_folder(os.path.join(conf_dir, ""))
    return bool(ours)


def pushed_aside(conf_dir: str) -> list[str]:
    """Return the files of ours that Cilium has renamed because it is to be the only one."""
    found = []
    for name in files.names(conf_dir):
        if name.endswith(CILIUM_SUFFIX):
            network = _network(conf_dir, name.removesuffix(CILIUM_SUFFIX), name)
            if isinstance(network, Network) and network.is_ours:
                found.append(name)
    return found


# The steps ---------------------------------------------------------------------------------------


def _configure(
    site: Site, found: _Found, network: Network, settings: dict[str, Any], token: str | None
) -> Outcome:
    wrapping.check(network, site.form)
    settings.setdefault("state_dir", _state_dir(site, network))
    keys = _keys(site, settings, token)
    whole = wrapping.wrap(network, keys, site.form)
    suffix = wrapping.SUFFIX[site.form]
    named = [one.file for one in found.ours if one.file.endswith(suffix)]
    if named and all(named[0].encode() < other.encode() for other in found.candidates):
        name = named[0]
    else:
        name = wrapping.name_before(found.candidates, site.form)
    own = {"name": network.name, **wrapping.plugin(network, keys)}
    _write_json(os.path.join(site.folder, CHILD_CONFIG), {**own, "type": networks.TYPE})
    changed = _write_json(os.path.join(site.conf_dir, name), whole)
    for other in found.ours:
        if other.file != name:
            files.remove(os.path.join(site.conf_dir, other.file))
            changed = True
    text = f"{name} has {network.file} as its {_ROLE[site.form]}"
    return Outcome(changed, "; ".join([text, *found.broken]))


_ROLE = {wrapping.DELEGATE: "delegate", wrapping.CHAINED: "first plugins"}


def _leave(site: Site, found: _Found, network: Network, own: Mapping[str, Any]) -> Outcome:
    """Leave a configuration alone that has Ratchet already and was written by somebody else."""
    changed = _write_json(os.path.join(site.folder, CHILD_CONFIG), dict(own))
    for other in found.ours:
        files.remove(os.path.join(site.conf_dir, other.file))
        changed = True
    return Outcome(
        changed, f"{network.file} has Ratchet already, written by somebody else: it stays as it is"
    )


def _configure_agent(site: Site, settings: dict[str, Any], token: str | None) -> Outcome:
    """Write what the child needs, and nothing that a runtime reads."""
    settings.setdefault("state_dir", f"{_STATE_DIRS}/{_DEFAULT_NAME}")
    own = {"name": _DEFAULT_NAME, "type": networks.TYPE, "attach": AGENT}
    own |= wrapping.plugin(None, _keys(site, settings, token))
    changed = _write_json(os.path.join(site.folder, CHILD_CONFIG), own)
    for network in _look(site.conf_dir).ours:  # from a time when it had another form
        files.remove(os.path.join(site.conf_dir, network.file))
        changed = True
    return Outcome(
        changed, "the network configurations stay as they are: the agent makes the links"
    )


def _keys(site: Site, settings: Mapping[str, Any], token: str | None) -> dict[str, Any]:
    """Return Ratchet's own keys: what the settings say, and for the rest what the node tells."""
    keys = dict(settings)
    if "etcd_host" not in keys:
        if site.etcd is None:
            raise InstallError(
                "nothing says where etcd is: set etcd_host, or install the Service ratchet-etcd"
            )
        keys["etcd_host"], keys["etcd_port"] = site.etcd[0], str(site.etcd[1])
    is_told = any(key in keys for key in ("etcd_ca_cert", "etcd_cert", "etcd_key"))
    if site.etcd_certificates is not None and not is_told:
        keys |= credentials.copy_etcd(site.folder, site.etcd_certificates)
    if site.account is not None and "kubeconfig" not in keys:
        token = token or site.account.token()
        keys["kubeconfig"] = credentials.write_kubeconfig(site.folder, site.account, token)
    if site.node_address and not {"parent_address", "parent_interface"} & keys.keys():
        keys["parent_address"] = site.node_address
    keys.setdefault("child_path", os.path.join(site.bin_dir, "ratchet-child"))
    return keys


def _settings(site: Site) -> dict[str, Any]:
    if site.settings_file is None:
        return {}
    try:
        found = json.loads(files.read(site.settings_file) or b"{}")
    except (ValueError, RecursionError) as error:
        raise InstallError(f"{site.settings_file} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise InstallError(f"{site.settings_file} is not a JSON object")
    wrapping.check_settings(found)
    return found


def _state_dir(site: Site, network: Network) -> str:
    """Return where the node's records lie: they stay there when the network gets another name."""
    return _kept_state_dir(site) or f"{_STATE_DIRS}/{network.name}"


def _kept_state_dir(site: Site) -> str | None:
    """Return where the child's own configuration says that the records lie."""
    try:
        before = json.loads(files.read(os.path.join(site.folder, CHILD_CONFIG)) or b"{}")
        return str(before["state_dir"])
    except (ValueError, KeyError, TypeError):
        return None  # there was none yet, or it is not ours


def _write_json(path: str, value: Mapping[str, Any]) -> bool:
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    return files.write(path, (json.dumps(value, indent=2) + "\n").encode())


# Looking -----------------------------------------------------------------------------------------


def _look(conf_dir: str) -> _Found:
    candidates, ours, broken = [], [], []
    first: Network | None = None
    for name in files.names(conf_dir):
        if not networks.is_candidate(name):
            continue
        network = _network(conf_dir, name, name)
        if isinstance(network, Network) and network.is_ours:
            ours.append(network)
            continue
        candidates.append(name)
        if first is not None:
            continue
        if isinstance(network, Network):
            first = network
        else:
            broken.append(f"{name} {network}")
    return _Found(tuple(candidates), tuple(ours), first, tuple(broken))


def _network(conf_dir: str, name: str, file: str) -> Network | str:
    """Read one of the folder's files as if it had this name; why it is none."""
    try:
        data = files.read(os.path.join(conf_dir, file))
        if data is None:
            return "is no file"
        return networks.parse(name, data)
    except NotANetworkError as error:
        return str(error)
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"


def _no_network(conf_dir: str, found: _Found) -> str:
    text = f"{conf_dir} holds no network configuration; is the cluster's CNI plugin installed?"
    return "; ".join([text, *found.broken])


@contextmanager
def _locked(site: Site) -> Iterator[None]:
    """Keep another installer out. The lock is the folder's own, so that no file is left of it."""
    with files.explained("open the folder of network configurations"):
        descriptor = os.open(site.conf_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
