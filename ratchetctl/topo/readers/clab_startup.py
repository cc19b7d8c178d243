"""Where images of containerlab's kinds read the startup configuration that it gives them.

Virtual machines in containers are built with vrnetlab, and read it at one place; containerlab's
documentation of each kind has it. Kinds of Ratchet's own table say it there.
"""

from __future__ import annotations

VRNETLAB = "/config/startup-config.cfg"
_OF_VRNETLAB = (
    "arista_veos",
    "aruba_aoscx",
    "cisco_asav",
    "cisco_c8000v",
    "cisco_cat9kv",
    "cisco_csr1000v",
    "cisco_n9kv",
    "cisco_vios",
    "cisco_xrv",
    "cisco_xrv9k",
    "dell_ftosv",
    "huawei_vrp",
    "juniper_cjunosevolved",
    "juniper_vjunosevolved",
    "juniper_vjunosrouter",
    "juniper_vjunosswitch",
    "juniper_vmx",
    "juniper_vqfx",
    "juniper_vsrx",
)
_PATHS = {
    **dict.fromkeys(_OF_VRNETLAB, VRNETLAB),
    "mikrotik_ros": "/ftpboot/config.auto.rsc",
    "nokia_sros": "/tftpboot/config.txt",
}
_OLDER = {  # names that containerlab had for kinds
    **{f"vr-{kind.partition('_')[2]}": kind for kind in _PATHS},
    **{f"vr-{kind}": kind for kind in _PATHS},
    "vr-csr": "cisco_csr1000v",
    "vr-ftosv": "dell_ftosv",
}


def path(kind: str) -> str | None:
    """Return the path, None where it is not known."""
    return _PATHS.get(_OLDER.get(kind, kind))
