"""What the program is told to do: its arguments, and becoming the one that serves.

A person or a service manager starts it without the socket and the lock. It takes them, from another
child if need be, and then becomes the supervisor (ratchet_child.supervision). What serves is not
imported for that.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import sys
import time
from collections.abc import Sequence
from functools import partial

from ratchet import client, statedir
from ratchet.cni.errors import INVALID_CONFIG
from ratchet.config import Config
from ratchet.errors import CniError, ConfigError, StateError
from ratchet.names import is_kubernetes_name
from ratchet_child.kernel import mounts
from ratchet_child.listening import listen
from ratchet_child.supervision import program, successor

# What the agent may write; as in ratchet_child.agent.reporter, which is not loaded for it.
REPORTS = ("events", "conditions", "network-status", "links")
_ASK_AGAIN_S = 2.0


def main(argv: list[str]) -> int:
    """Take the socket and the lock and become the supervisor; the exit status if that fails."""
    arguments = parser().parse_args(argv)
    if arguments.on_host is not None:
        _become_on_host(arguments.on_host, argv, arguments.proc)
    try:
        config = configuration(arguments)
        if config.attach == "agent" and (arguments.kubeconfig or config.kubeconfig) is None:
            raise ConfigError("kubeconfig", None, 'the path of a kubeconfig, as attach is "agent"')
        held = _become_the_one(config.state_dir, waits=arguments.stay)
        if held is None:
            return refuse(f"another one serves {config.state_dir} already")
        program.execute(program.path(), argv, held.listener, held.lock, held.kept)
    except (CniError, OSError) as error:
        return refuse(str(error))


def _become_on_host(program: str, argv: Sequence[str], proc: str) -> None:
    """Become a program of the node; where that cannot be, say so and go on in the container."""
    at = next(place for place, word in enumerate(argv) if word.startswith("--on-host"))
    rest = [*argv[:at], *argv[at + (1 if "=" in argv[at] else 2) :]]
    try:
        mounts.become(program, rest, proc)
    except OSError as error:
        sys.stderr.write(
            f"ratchet-child: {program} cannot be executed on the node ({error}); this child stays"
            " in its container, where it does not serve the front: pods take longer to start\n"
        )


def refuse(reason: str) -> int:
    """Say why the program does not do what it was started for; the exit status."""
    sys.stderr.write(f"ratchet-child: {reason}\n")
    return 1


def parser() -> argparse.ArgumentParser:
    """Return what reads the program's arguments."""
    made = argparse.ArgumentParser(
        prog="ratchet-child",
        description="Pairs this node's labelled pods through etcd and makes their links.",
    )
    source = made.add_mutually_exclusive_group(required=True)
    source.add_argument("--config", metavar="FILE", help="the node's 10-ratchet.conf or .conflist")
    source.add_argument("--state-dir", metavar="DIR", help="where parents have left their settings")
    made.add_argument(
        "--stay", action="store_true", help="do not end when no pods are left; log to stderr"
    )
    made.add_argument(
        "--on-host",
        metavar="PROGRAM",
        help="in a container with the host's process IDs: become this program of the host instead,"
        " with the other arguments",
    )
    agent = made.add_argument_group(
        "the node's agent", "with --stay and a kubeconfig: watch this node's pods, and tell of them"
    )
    agent.add_argument(
        "--node-name",
        metavar="NAME",
        type=_node_name,
        help="this node's name in Kubernetes (default: $NODE_NAME, else the host's name)",
    )
    agent.add_argument(
        "--kubeconfig", metavar="FILE", help="in place of the network configuration's kubeconfig"
    )
    agent.add_argument(
        "--report",
        metavar="LIST",
        type=_reports,
        default=frozenset(REPORTS),
        help=f"what to write of pods: {','.join(REPORTS)} (the default), or none",
    )
    agent.add_argument(
        "--proc",
        metavar="DIR",
        default="/proc",
        help='with "attach": "agent": the host\'s /proc, if it is not this one',
    )
    agent.add_argument(
        "--pod-uid",
        metavar="UID",
        help="the UID of the agent's own pod, on which it tells of the node (default: $POD_UID)",
    )
    return made


def _node_name(text: str) -> str:
    """Read a node's name. *Raises* ArgumentTypeError."""
    if not is_kubernetes_name(text):
        allowed = (
            "allowed are lower-case letters, digits, '-' and '.', as `kubectl get nodes` has it"
        )
        raise argparse.ArgumentTypeError(f"{text!r} is not a node's name; {allowed}")
    return text


def _reports(text: str) -> frozenset[str]:
    """Read what the agent is to write. *Raises* ArgumentTypeError."""
    found = frozenset() if text == "none" else frozenset(text.split(","))
    if not found <= set(REPORTS):
        allowed = f"allowed are {', '.join(REPORTS)}, with commas between them, or none"
        raise argparse.ArgumentTypeError(f"{text!r} is not understood; {allowed}")
    return found


def configuration(arguments: argparse.Namespace) -> Config:
    """Read the configuration that the arguments name. *Raises* CniError."""
    if arguments.config is not None:
        return Config.parse(_plugin_configuration(arguments.config))
    require_private(arguments.state_dir)  # the settings are there as well
    path = os.path.join(arguments.state_dir, statedir.SETTINGS)
    return Config.from_settings(_json_object(path))


def _plugin_configuration(path: str) -> dict[str, object]:
    """Our object in a network configuration: the file's own, or the one in its `plugins`."""
    found = _json_object(path)
    plugins = found.get("plugins")
    if plugins is None:
        return found
    for plugin in plugins if isinstance(plugins, list) else ():
        if isinstance(plugin, dict) and plugin.get("type") == "ratchet":
            return {"name": found.get("name"), "cniVersion": found.get("cniVersion"), **plugin}
    raise ConfigError(f"plugins in {path}", "without one", "a list with a plugin of type ratchet")


def _json_object(path: str) -> dict[str, object]:
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except OSError as error:
        raise CniError(INVALID_CONFIG, f"{path} cannot be read", error.strerror or "") from error
    except (ValueError, RecursionError) as error:
        raise CniError(INVALID_CONFIG, f"{path} is not JSON", str(error)) from error
    if not isinstance(found, dict):
        raise CniError(INVALID_CONFIG, f"{path} is not a JSON object")
    return found


def _become_the_one(state_dir: str, *, waits: bool) -> successor.Held | None:
    """Take the lock and the socket as a parent would; None when another child has them.

    Who is to stay asks the other one to hand over, and waits for as long as that takes.
    """
    require_private(state_dir)
    statedir.make_private(state_dir)
    told: str | None = None
    while True:
        held = _take(state_dir)
        if held is not None or not waits:
            return held
        answer = successor.ask(partial(client.with_address, state_dir))
        if isinstance(answer, successor.Held):
            return answer
        if answer != told:
            told = answer
            sys.stderr.write(f"ratchet-child: another one serves {state_dir}: {answer}\n")
        time.sleep(_ASK_AGAIN_S)


def require_private(state_dir: str) -> None:
    """Refuse a directory that somebody other than root could replace. *Raises* StateError."""
    replaceable = statedir.open_to_others(state_dir)
    if replaceable is not None:
        raise StateError.open_to_others(state_dir, replaceable)


def _take(state_dir: str) -> successor.Held | None:
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    lock = os.open(os.path.join(state_dir, statedir.LOCK), flags, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return successor.Held(listen(state_dir).detach(), lock, {})
