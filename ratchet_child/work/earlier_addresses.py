"""The addresses under which this node has published, kept beside the records.

When an administrator changes `parent_address`, the keys below the old one are still there and
nobody else will ever remove them. An address is forgotten when nothing is left below it.
"""

from __future__ import annotations

import json
import os
import threading

from ratchet import log, statedir

_FILE = "addresses.json"


class EarlierAddresses:
    """Those of one state directory. A file that cannot be used loses nothing but them."""

    def __init__(self, state_dir: str) -> None:
        self._path = os.path.join(state_dir, _FILE)
        self._lock = threading.Lock()

    def use(self, address: str) -> list[str]:
        """Note the address in use; the others that were used earlier."""
        with self._lock:
            known = self._read()
            if address not in known:
                self._write([*known, address])
        return [one for one in known if one != address]

    def known(self) -> list[str]:
        """Return all addresses below which something may be left."""
        with self._lock:
            return self._read()

    def forget(self, address: str) -> None:
        """Nothing is left below an address. *Safe to call twice.*"""
        with self._lock:
            self._write([one for one in self._read() if one != address])

    def _read(self) -> list[str]:
        try:
            with open(self._path, encoding="utf-8") as file:
                found = json.load(file)
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            log.error("earlier addresses cannot be read", path=self._path, error=str(error))
            return []
        return [one for one in found if isinstance(one, str)] if isinstance(found, list) else []

    def _write(self, addresses: list[str]) -> None:
        try:
            statedir.write_private(self._path, json.dumps(addresses).encode())
        except OSError as error:
            log.error("addresses cannot be written", path=self._path, error=str(error))
