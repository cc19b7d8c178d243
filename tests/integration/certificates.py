"""Certificate authorities made by the `openssl` program, and what they issue."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass

from tests.integration.namespaces import run

_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, as files."""

    cert: str
    key: str


class Authority:
    """A CA in a folder of its own."""

    def __init__(self, folder: str, name: str) -> None:
        self._folder = os.path.join(folder, name)
        os.mkdir(self._folder)
        self._own = self._pair("ca")
        self.cert = self._own.cert
        run(
            *("openssl", "req", "-x509", *_NEW_KEY, "-days", "2", "-subj", f"/CN={name}"),
            *("-keyout", self._own.key, "-out", self._own.cert),
        )

    def server(self, *addresses: str, name: str = "server") -> Pair:
        """Issue a server's certificate for IP addresses or host names."""
        names = ",".join(f"{'IP' if _is_ip(one) else 'DNS'}:{one}" for one in addresses)
        return self._issue(name, "serverAuth", f"subjectAltName={names}")

    def client(self, name: str = "client", days: int = 2) -> Pair:
        """Issue a client's certificate; one of -1 days has expired yesterday."""
        return self._issue(name, "clientAuth", days=days)

    def _pair(self, name: str) -> Pair:
        base = os.path.join(self._folder, name)
        return Pair(f"{base}.pem", f"{base}-key.pem")

    def _issue(self, name: str, usage: str, *extensions: str, days: int = 2) -> Pair:
        pair = self._pair(f"{name}-{secrets.token_hex(4)}")
        request, wanted = f"{pair.cert}.csr", f"{pair.cert}.ext"
        with open(wanted, "w", encoding="ascii") as file:
            file.write("\n".join((f"extendedKeyUsage={usage}", *extensions)))
        run(
            *("openssl", "req", "-new", *_NEW_KEY, "-subj", f"/CN={name}"),
            *("-keyout", pair.key, "-out", request),
        )
        run(
            *("openssl", "x509", "-req", "-in", request, "-extfile", wanted, "-days", str(days)),
            *("-CA", self._own.cert, "-CAkey", self._own.key, "-out", pair.cert),
        )
        return pair


def _is_ip(text: str) -> bool:
    return ":" in text or text.replace(".", "").isdigit()
