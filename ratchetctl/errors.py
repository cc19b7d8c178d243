"""What can go wrong for the person at the keyboard.

    OperatorError           shown as one line; exit status 1
    ├── ManifestError       a YAML file says something that Kubernetes or the simulator cannot take
    ├── SimError            the simulated cluster cannot do what was asked
    │   └── PluginError     a plugin answered with a CNI error
    ├── TopologyError       a topology is wrong, or asks for what Ratchet cannot do
    ├── ClusterError        a cluster's API server cannot do what was asked (api/errors.py)
    ├── EtcdError           etcd cannot be reached, or refuses
    ├── InstallError        Ratchet cannot be put onto this node, or taken from it
    ├── StatusError         the node, network or pod that was asked for is not there
    ├── WaitError           nothing says for which links a pod is to wait
    └── DemoError           the demo saw something other than what it claims

These are apart from ratchet.errors because they are never turned into a CNI answer: they carry no
code, only a sentence for a person.
"""

from __future__ import annotations

import reprlib


class OperatorError(Exception):
    """A command of ratchetctl cannot do what was asked; the message says why and what to check."""


class ManifestError(OperatorError):
    """A Kubernetes YAML file is wrong: names the file, document, field and value."""

    def __init__(self, where: str, field: str, value: object, allowed: str) -> None:
        shown = "missing" if value is None else _shown(value)
        super().__init__(
            f"{where}: {field}: {shown}: {allowed}" if field else f"{where}: {allowed}"
        )
        self.where, self.field, self.value, self.allowed = where, field, value, allowed


def _shown(value: object) -> str:
    """Return a value on one line, cut short: a few YAML aliases are enough for an endless one."""
    writer = reprlib.Repr()
    writer.maxstring = writer.maxother = writer.maxlong = 200
    try:
        return writer.repr(value)
    except ValueError:  # an integer of thousands of digits
        return f"a value of type {type(value).__name__}"


class SimError(OperatorError):
    """The simulated cluster cannot do what was asked."""


class PluginError(SimError):
    """A plugin answered an operation with an error (CNI spec 1.1.0 §5 Error)."""

    def __init__(self, plugin: str, operation: str, code: int, msg: str, details: str = "") -> None:
        text = f"plugin {plugin} failed {operation}: {msg} (code {code})"
        super().__init__(f"{text}\n  {details}" if details else text)
        self.code, self.msg, self.details = code, msg, details


class TopologyError(OperatorError):
    """A topology is wrong, or asks for what Ratchet cannot do: a line each, with file and line."""


class ClusterError(OperatorError):
    """A cluster's API server cannot be asked, or does not do what was asked."""


class EtcdError(OperatorError):
    """etcd cannot be reached, or refuses the request."""


class StatusError(OperatorError):
    """The node, network or pod that was asked for is not there, or not to be found."""


class InstallError(OperatorError):
    """Ratchet cannot be put onto this node, or taken from it, as it was asked."""


class WaitError(OperatorError):
    """Nothing says for which links a pod is to wait, or what says so cannot be read."""


class DemoError(OperatorError):
    """The demo saw something other than what it claims."""
