"""What is true of a cluster that is quiet: computed in full from which containers there are.

The world knows the containers and the topology; from these follow every interface, every key and
every record. Nothing is read from Ratchet's programs themselves, and nothing is "at least": what is
there and not expected is as wrong as what is expected and not there.
"""

from __future__ import annotations

from tests.faults import ends, keys, remains
from tests.faults.observed import look
from tests.faults.world import World


def violations(world: World, *, carry: bool = True) -> list[str]:
    """Everything that is not as it should be, in words. Links are tried when all else is well."""
    try:
        seen = look(world)
    except (OSError, AssertionError) as error:
        return [f"the cluster cannot be looked at: {error!r}"]
    found = [
        *remains.records(world, seen),
        *keys.keys(world, seen),
        *ends.interfaces(world, seen),
        *remains.processes(world, seen),
        *(() if world.stranger is None else world.stranger.harm()),
    ]
    if carry and not found:
        found += ends.carrying(world)
    return found
