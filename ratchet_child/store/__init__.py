"""The database that the nodes share: what it can be asked, and etcd's v2 API as one that can.

The only importer of python-etcd. May import from `metrics` and `model`.
"""

from __future__ import annotations

import sys
from types import ModuleType


def _leave_out_dns() -> None:
    """Have python-etcd find a module without anything in it where it imports dnspython.

    It wants that for discovery by SRV records, which we have no use for: 40 ms at each start of a
    child, and a parser of what strangers send. Here, as this is read before every module beside it.
    """
    package, resolver = ModuleType("dns"), ModuleType("dns.resolver")
    package.resolver = resolver  # type: ignore[attr-defined]
    sys.modules.setdefault(package.__name__, package)
    sys.modules.setdefault(resolver.__name__, resolver)


_leave_out_dns()
