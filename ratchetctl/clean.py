"""`ratchetctl clean`: removes every key of Ratchet from etcd, as jobs/etcd-delete.yaml does.

For clusters that Ratchet leaves, or whose keys belong to nodes that are gone for good. It asks
first; nodes write the keys of pods that still run again within seconds. Requests go through
`requests` and not through the child's store, because one DELETE needs none of its machinery.
"""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from urllib.parse import quote

import click
import requests

from ratchetctl.errors import EtcdError

DEFAULT_PORT = 2379
REQUEST_TIMEOUT_S = 10.0
KEY_NOT_FOUND = 100  # etcd v2 API, errorCode

PATH = click.Path(exists=True, dir_okay=False, readable=True)


@click.command()
@click.option(
    "--etcd-host", required=True, help="a host, or several host[:port] separated by commas"
)
@click.option("--etcd-port", default=DEFAULT_PORT, show_default=True, type=click.IntRange(1, 65535))
@click.option("--prefix", default="/ratchet", show_default=True, help="the directory to remove")
@click.option("--ca-cert", type=PATH, help="use TLS and trust this CA")
@click.option("--cert", type=PATH, help="use TLS with this client certificate")
@click.option("--key", type=PATH, help="the client certificate's key")
@click.option("--username", help="the etcd user")
@click.option("--password-file", type=PATH, help="the file that holds the user's password")
@click.option("--yes", is_flag=True, help="remove the keys without asking")
def clean(
    etcd_host: str,
    etcd_port: int,
    prefix: str,
    ca_cert: str | None,
    cert: str | None,
    key: str | None,
    username: str | None,
    password_file: str | None,
    yes: bool,
) -> None:
    """Remove every key below a prefix from etcd."""
    directory = _directory(prefix)
    if (cert is None) != (key is None):
        raise click.UsageError("--cert and --key go together")
    if (username is None) != (password_file is None):
        raise click.UsageError("--username and --password-file go together")
    urls = endpoints(etcd_host, etcd_port, tls=bool(ca_cert or cert))
    if not yes:
        click.confirm(f"Remove every key below {directory} from {', '.join(urls)}?", abort=True)
    with requests.Session() as session:
        # Neither proxies nor ~/.netrc: an etcd is spoken to directly.
        session.trust_env = False
        session.verify = ca_cert or True
        if cert and key:
            session.cert = (cert, key)
        if username and password_file:
            session.auth = (_as_sent(username), _as_sent(_password(password_file)))
        if remove(session, urls, directory):
            click.echo(f"removed {directory}")
        else:
            click.echo(f"{directory} was not there")


def endpoints(hosts: str, port: int, *, tls: bool) -> list[str]:
    """Return the URL of each host in a list like etcd_host: host, host:port, [v6]:port, bare v6."""
    scheme = "https" if tls else "http"
    urls = []
    for part in (one.strip() for one in hosts.split(",")):
        if not part:
            raise click.UsageError(f"--etcd-host {hosts!r}: a host is missing")
        if "/" in part:
            raise click.UsageError(f"--etcd-host {hosts!r}: hosts are written without http://")
        if part.startswith("["):
            urls.append(f"{scheme}://{part}" if "]:" in part else f"{scheme}://{part}:{port}")
        elif part.count(":") > 1:
            urls.append(f"{scheme}://[{part}]:{port}")
        else:
            urls.append(f"{scheme}://{part}" if ":" in part else f"{scheme}://{part}:{port}")
    return urls


def remove(session: requests.Session, urls: Sequence[str], directory: str) -> bool:
    """Remove a directory with everything in it; False when there was none. Raises EtcdError.

    The next member is asked only when one cannot be reached: a refusal is the cluster's.
    """
    problems = []
    for url in urls:
        try:
            answer = session.delete(
                f"{url}/v2/keys{quote(directory)}",
                params={"recursive": "true"},
                timeout=REQUEST_TIMEOUT_S,
            )
        except (requests.RequestException, OSError) as error:
            problems.append(f"{url}: {_innermost(error)}")
            continue
        if answer.status_code == HTTPStatus.OK:
            return True
        if answer.status_code == HTTPStatus.NOT_FOUND and _error_code(answer) == KEY_NOT_FOUND:
            return False
        if answer.status_code == HTTPStatus.NOT_FOUND:
            raise EtcdError(f"{url} has no v2 API: start etcd with --enable-v2")
        if answer.status_code == HTTPStatus.UNAUTHORIZED:
            raise EtcdError(
                f"{url} refuses the user: wrong password, no such user, or no role that may write"
                f" {directory} itself, which {directory}/* does not include"
            )
        raise EtcdError(f"{url} refuses: {answer.status_code} {answer.text.strip()[:200]}")
    raise EtcdError("etcd cannot be reached:\n  " + "\n  ".join(problems))


def _directory(prefix: str) -> str:
    directory = "/" + prefix.strip("/")
    if directory == "/" or any(part in ("", ".", "..") for part in directory[1:].split("/")):
        raise click.UsageError(
            f"--prefix {prefix!r}: name a directory; all of etcd is not Ratchet's to remove"
        )
    return directory


def _password(path: str) -> str:
    """Read the password in a file as the nodes do: without white space around it."""
    try:
        with open(path, encoding="utf-8") as file:
            password = file.read().strip()
    except OSError as error:
        raise EtcdError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise EtcdError(f"{path} is not UTF-8 text") from None
    if not password:
        raise EtcdError(f"{path} is empty")
    return password


def _as_sent(text: str) -> str:
    """Return a text whose Latin-1 bytes, which requests sends, are the UTF-8 that etcd expects."""
    return text.encode().decode("latin-1")


def _innermost(error: BaseException) -> BaseException:
    """Return what the system said, beneath what requests and urllib3 make of it."""
    while (below := error.__cause__ or error.__context__) is not None:
        error = below
    return error


def _error_code(answer: requests.Response) -> int | None:
    try:
        code = answer.json().get("errorCode")
    except (ValueError, AttributeError):
        return None
    return code if isinstance(code, int) else None
