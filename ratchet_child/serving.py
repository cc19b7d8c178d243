"""Being the child of a supervisor: the one that serves."""

from __future__ import annotations

import os
import socket
import sys
import threading
from functools import partial
from typing import TYPE_CHECKING

from ratchet import log
from ratchet.errors import CniError
from ratchet_child import command
from ratchet_child.child import Child

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from ratchet.config import Config
    from ratchet_child.agent.agent import Agent
    from ratchet_child.supervision.keeper import Keeper

_STACK_BYTES = 512 * 1024
# How long a thread that computes keeps others waiting that have heard from the kernel or from etcd.
_SWITCH_S = 0.0005


def serve(argv: Sequence[str], listener: int, keeper: Keeper) -> int:
    """Be the child of a supervisor; the exit status."""
    arguments = command.parser().parse_args(argv)
    try:
        config = command.configuration(arguments)
        command.require_private(config.state_dir)
    except (CniError, OSError) as error:
        return command.refuse(str(error))
    threading.stack_size(_STACK_BYTES)
    sys.setswitchinterval(_SWITCH_S)
    try:
        Child(
            config,
            socket.socket(fileno=listener),
            keeper,
            stay=arguments.stay,
            new_agent=partial(_new_agent, arguments),
        ).run()
    except Exception as error:
        log.crash("the child has failed", error)
        raise
    return 0


def _new_agent(arguments: argparse.Namespace, config: Config) -> Agent | None:
    """Return the node's agent, where there is to be one."""
    kubeconfig = arguments.kubeconfig or config.kubeconfig
    if not arguments.stay or kubeconfig is None or not config.use_labels:
        return None
    from ratchet_child.agent.agent import Agent, Wishes  # noqa: PLC0415 - memory that others need not pay for

    node = arguments.node_name or os.environ.get("NODE_NAME") or os.uname().nodename.lower()
    pod = arguments.pod_uid or os.environ.get("POD_UID") or None
    wishes = Wishes(node, arguments.kubeconfig, arguments.report, arguments.proc, pod)
    return Agent(wishes, kubeconfig, config.state_dir)
