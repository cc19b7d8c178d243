"""The program `ratchet-child`. Parents start it; a supervisor may, with `--stay`."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import resource
import socket
import sys
import threading

from ratchet import log, statedir
from ratchet.cni.errors import INVALID_CONFIG
from ratchet.config import Config
from ratchet.errors import CniError, ConfigError, StateError
from ratchet_child.child import Child, listen

_STACK_BYTES = 512 * 1024


def main(argv: list[str] | None = None) -> int:
    """Run the child; the exit status."""
    arguments = _parser().parse_args(argv)
    try:
        config = _config(arguments)
        if arguments.listen_fd is None:
            held = _become_the_child(config.state_dir)
            if held is None:
                return _refuse(f"another one serves {config.state_dir} already")
            listener, _lock = held
        else:
            listener = socket.socket(fileno=arguments.listen_fd)
            # Held by this descriptor for as long as the process lives; nobody inherits it.
            os.set_inheritable(arguments.lock_fd, False)
    except (CniError, OSError) as error:
        return _refuse(str(error))
    _prepare()
    try:
        Child(config, listener, stay=arguments.stay).run()
    except Exception as error:
        log.crash("the child has failed", error)
        raise
    return 0


def _refuse(reason: str) -> int:
    sys.stderr.write(f"ratchet-child: {reason}\n")
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ratchet-child",
        description="Pairs this node's labelled pods through etcd and makes their links.",
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--config", metavar="FILE", help="the node's 10-ratchet.conf or .conflist")
    source.add_argument("--state-dir", metavar="DIR", help="where parents have left their settings")
    parser.add_argument(
        "--stay", action="store_true", help="do not end when no pods are left; log to stderr"
    )
    # From the parent that starts the child: a listening socket and the lock that goes with it.
    parser.add_argument("--listen-fd", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--lock-fd", type=int, help=argparse.SUPPRESS)
    return parser


def _config(arguments: argparse.Namespace) -> Config:
    if arguments.config is not None:
        return Config.parse(_plugin_configuration(arguments.config))
    path = os.path.join(arguments.state_dir, statedir.SETTINGS)
    return Config.from_settings(_json_object(path))


def _plugin_configuration(path: str) -> dict[str, object]:
    """Return our object in a network configuration: the file's own, or one of its `plugins`."""
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


def _become_the_child(state_dir: str) -> tuple[socket.socket, int] | None:
    """Take the lock and the socket as a parent would; None when another child has them."""
    replaceable = statedir.open_to_others(state_dir)
    if replaceable is not None:
        raise StateError.open_to_others(state_dir, replaceable)
    statedir.make_private(state_dir)
    lock = os.open(
        os.path.join(state_dir, statedir.LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
    )
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return listen(state_dir), lock


def _prepare() -> None:
    """Allow three descriptors for each pod, and small stacks for the threads."""
    threading.stack_size(_STACK_BYTES)
    with contextlib.suppress(OSError, ValueError):
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


if __name__ == "__main__":
    sys.exit(main())
