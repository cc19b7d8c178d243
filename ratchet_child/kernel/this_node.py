"""This node's end of all tunnels: as configured, or found out from the kernel.

Done once, when an engine is made; a node whose address changes later needs a new engine. Apart from
`local`, whose nouns know of neither the configuration nor the kernel.
"""

from __future__ import annotations

import socket

from ratchet import log
from ratchet.config import Config
from ratchet_child.kernel.devices import Devices
from ratchet_child.model.local import Node


def this_node(config: Config, devices: Devices) -> Node:
    """*Raises* KernelError."""
    interface, address = config.parent_interface, config.parent_address
    if interface is None:
        interface = devices.interface_of(address) if address else devices.default_route_interface()
    if address is None and interface is not None:
        address = devices.first_address(interface)
    if address is None:
        # Links inside the node work without; v0.1.0 compared empty strings here.
        address = socket.gethostname()
        log.warning("no parent_address: links to other nodes cannot be made", node=address)
    return Node(address, interface or "", config.state_dir)
