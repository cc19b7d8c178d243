"""etcd with TLS, with users, and with both: pods are linked, and what is wrong is said.

The member is real; its certificates are made by `openssl`. What is wrong is tried on the store
alone, where a case costs milliseconds, and some of it on whole pods.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ratchet.config import Config
from ratchet.errors import StoreError
from ratchet_child.store.etcd_v2 import EtcdV2Store
from tests.faults.members import Members
from tests.integration.test_secrets import ask
from tests.lab.api_server import Authority, lock_key
from tests.lab.cluster import Cluster
from tests.lab.etcd_server import Etcd, SecureEtcd
from tests.lab.namespaces import random_port
from tests.lab.polling import hold_for, wait_for
from tests.lab.runtime import PAIR, Node, in1_in2

pytestmark = pytest.mark.root

PREFIX_ONLY = ["/ratchet/*"]  # docs/configuration.md: enough for the nodes
PASSWORD = "correct horse: battery=stäple €%s{0}$(x)\"'"
AWAY_S = 20.0
# etcd checks a password by bcrypt at each request: some 0.1 s of CPU time, and several times that
# on a loaded machine. A link takes about fifteen requests, one after the other.
BCRYPT_S = 30.0


@dataclasses.dataclass
class Site:
    """A secured etcd, who vouches for whom, and the files that nodes are configured with."""

    etcd: SecureEtcd
    authority: Authority
    stranger: Authority
    folder: str
    client: tuple[str, str]

    @property
    def ca_cert(self) -> str:
        return f"{self.folder}/ca.pem"

    @property
    def cert(self) -> str:
        return f"{self.folder}/node.pem"

    @property
    def key(self) -> str:
        return f"{self.folder}/node-key.pem"

    @property
    def password_file(self) -> str:
        return f"{self.folder}/password"

    def reset(self) -> None:
        put(self.authority.ca, self.ca_cert)
        self.show(self.client)
        self.say(PASSWORD)

    def show(self, pair: tuple[str, str]) -> None:
        """Put another client certificate in the place of the nodes' one."""
        put(pair[0], self.cert)
        put(pair[1], self.key)

    def say(self, password: str | bytes) -> None:
        write(self.password_file, password if isinstance(password, bytes) else password.encode())

    def tls(self, **changes: Any) -> dict[str, Any]:
        """Return the keys of a configuration with TLS."""
        return {
            "etcd_host": self.etcd.address,
            "etcd_port": self.etcd.port,
            "etcd_ca_cert": self.ca_cert,
            "etcd_cert": self.cert,
            "etcd_key": self.key,
            **changes,
        }

    def user(self, name: str = "node", **changes: Any) -> dict[str, Any]:
        """Return the keys of a configuration with a user and without TLS."""
        return {
            "etcd_host": self.etcd.address,
            "etcd_port": self.etcd.plain_port,
            "etcd_username": name,
            "etcd_password_file": self.password_file,
            **changes,
        }

    def store(self, **keys: Any) -> EtcdV2Store:
        given = {key: value for key, value in keys.items() if value is not None}
        return EtcdV2Store(Config.parse({"name": "net", "delegate": {"type": "bridge"}, **given}))

    def refused(self, store: EtcdV2Store) -> str:
        """What is said of a request that fails, the same each time."""
        said = {self.etcd.namespace.do(lambda: refusal(store)) for _ in range(4)}
        assert len(said) == 1, said
        return said.pop()

    def works(self, store: EtcdV2Store) -> bool:
        """Whether a key can be written and read."""

        def ask() -> bool:
            try:
                store.set("probe", "1")
            except StoreError:
                return False
            return store.get("probe") is not None

        return self.etcd.namespace.do(ask)


def refusal(store: EtcdV2Store) -> str:
    with pytest.raises(StoreError) as caught:
        store.set("probe", "1")
    return str(caught.value)


def put(source: str, target: str) -> None:
    with open(source, "rb") as file:
        write(target, file.read())


def write(path: str, data: bytes) -> None:
    """Replace a file as a whole, as those who renew certificates do."""
    new = f"{path}.new"
    with open(new, "wb") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(data)
    os.rename(new, path)


@pytest.fixture(scope="module")
def whole_site(session_cluster: Cluster) -> Iterator[Site]:
    if shutil.which("openssl") is None:
        pytest.fail("no program openssl")
    folder = Path(session_cluster.directory) / f"secure-{secrets.token_hex(4)}"
    folder.mkdir()
    authority, stranger = Authority(str(folder / "ours")), Authority(str(folder / "stranger"))
    etcd = session_cluster.etcd
    server = SecureEtcd(
        etcd.namespace,
        etcd.address,
        random_port(),
        str(folder),
        authority.ca,
        authority.issue("server", hosts=f"IP:{etcd.address}"),
    )
    try:
        server.start()
        yield Site(server, authority, stranger, str(folder), authority.issue("client"))
    finally:
        server.stop()
        shutil.rmtree(folder)


@pytest.fixture
def site(whole_site: Site) -> Iterator[Site]:
    """Give the secured etcd, empty and for everybody who has a certificate."""
    whole_site.reset()
    yield whole_site
    whole_site.etcd.start()
    whole_site.etcd.admit_guests()
    whole_site.etcd.wipe()


@pytest.fixture(scope="module")
def registered(whole_site: Site) -> Site:
    """Give the site with users; each request of one costs etcd a tenth of a second."""
    etcd = whole_site.etcd
    etcd.role("ratchet", PREFIX_ONLY, PREFIX_ONLY)
    etcd.role("reader", PREFIX_ONLY, [])
    etcd.role("elsewhere", ["/other/*"], ["/other/*"])
    etcd.user("node", PASSWORD, "ratchet")
    etcd.user("reader", PASSWORD, "reader")
    etcd.user("elsewhere", PASSWORD, "elsewhere")
    etcd.user("idle", PASSWORD)
    etcd.user("certified", PASSWORD, "ratchet")
    return whole_site


@pytest.fixture
def users(site: Site, registered: Site) -> Site:
    """Give the secured etcd with authentication on."""
    site.etcd.require_users()
    return site


@pytest.fixture
def linked(cluster: Cluster, site: Site) -> Iterator[Cluster]:
    """Give a cluster whose pods use the secured etcd, and see to it that they leave nothing."""
    yield cluster
    for node in cluster.nodes:
        for attachment in list(node.attachments.values()):
            node.delete(attachment.pod, ifname=attachment.ifname).succeeded()
    wait_for(
        "all keys but vxlanid to go",
        site.etcd.tree,
        until=lambda tree: set(tree) <= {"/ratchet/", "/ratchet/vxlanid"},
    )
    wait_for_no_records(*cluster.nodes)


def wait_for_no_records(*nodes: Node) -> None:
    """Wait until the children need etcd no more: a record goes after the last of its keys."""
    for node in nodes:
        wait_for(
            f"the records of node {node.number} to go",
            node.records,
            until=lambda records: not records,
        )


def link(cluster: Cluster, at: Node, far: Node, keys: dict[str, Any]) -> None:
    """Attach a pair of pods and see that they reach each other."""
    left, right = cluster.pod("a"), cluster.pod("b")
    at.add(left, in1_in2("b"), **keys).succeeded()
    far.add(right, PAIR, **keys).succeeded()
    left.netns.wait_link("in1", "vxlan" if far is not at else "veth")
    left.netns.wait_ping("192.168.2.101")


def wait_etcd(node: Node, keys: dict[str, Any], says: str | None) -> None:
    """Wait until the child says this of etcd, None when all is well. STATUS never minds."""
    node.status(config=node.config(cniVersion="1.1.0", **keys)).succeeded()

    def is_said(told: str | None) -> bool:
        return told is None if says is None else says in (told or "")

    wait_for(
        f"the child to say {says}", lambda: json.loads(ask(node, "status"))["etcd"], until=is_said
    )


# TLS


def test_pods_are_linked_over_tls_with_client_certificates(
    linked: Cluster, node: Node, far: Node, site: Site
) -> None:
    link(linked, node, far, site.tls())
    wait_etcd(node, site.tls(), None)
    assert node.wait_child()
    # Nothing went past the secured etcd.
    assert linked.etcd.keys() == {}


TLS_FAULTS: list[tuple[str, Callable[[Site], dict[str, Any]], list[str]]] = [
    (
        "ca that has not issued etcd's certificate",
        lambda site: site.tls(etcd_ca_cert=site.stranger.ca),
        ["{port}", "not trusted", "stranger/ca.crt", "unable to get local issuer certificate"],
    ),
    (
        "no ca, so the system's",
        lambda site: site.tls(etcd_ca_cert=None),
        ["{port}", "not trusted", "without etcd_ca_cert"],
    ),
    (
        "host that etcd's certificate does not name",
        lambda site: site.tls(etcd_host=site.etcd.misnamed),
        ["https://127.0.0.2:{port}", "not trusted", "IP address mismatch"],
    ),
    (
        "no client certificate",
        lambda site: site.tls(etcd_cert=None, etcd_key=None),
        ["{port}", "wants a client certificate", "etcd_cert and etcd_key"],
    ),
    (
        "expired client certificate",
        lambda site: certified(site, site.authority.issue("expired", expired=True)),
        ["{port}", "refuses the client certificate", "expired.crt", "has expired"],
    ),
    (
        "client certificate of another ca",
        lambda site: certified(site, site.stranger.issue("client")),
        ["{port}", "refuses the client certificate", "stranger/client.crt", "--trusted-ca-file"],
    ),
    (
        "etcd without TLS",
        lambda site: site.tls(etcd_port=site.etcd.plain_port),
        ["{plain_port}", "does not speak TLS"],
    ),
    (
        "etcd with TLS and we without",
        lambda site: {"etcd_host": site.etcd.address, "etcd_port": site.etcd.port},
        ["{port}", "should it want TLS", "etcd_ca_cert"],
    ),
    (
        "key of another certificate",
        lambda site: site.tls(etcd_key=site.authority.issue("other")[1]),
        ["etcd_key", "other.key", "is not the key of", "node.pem"],
    ),
    (
        "missing ca",
        lambda site: site.tls(etcd_ca_cert=f"{site.folder}/none.pem"),
        ["etcd_ca_cert", "none.pem", "No such file"],
    ),
    (
        "missing certificate",
        lambda site: site.tls(etcd_cert=f"{site.folder}/none.pem"),
        ["etcd_cert", "none.pem", "No such file"],
    ),
    (
        "missing key",
        lambda site: site.tls(etcd_key=f"{site.folder}/none.pem"),
        ["etcd_key", "none.pem", "No such file"],
    ),
    (
        "directory",
        lambda site: site.tls(etcd_ca_cert=site.folder),
        ["etcd_ca_cert", "is a directory"],
    ),
    (
        "ca that is no certificate",
        lambda site: site.tls(etcd_ca_cert=site.password_file),
        ["etcd_ca_cert", "holds no PEM certificate"],
    ),
    (
        "certificate that is none",
        lambda site: site.tls(etcd_cert=site.password_file),
        ["etcd_cert", "holds no PEM certificate"],
    ),
    (
        "key that is none",
        lambda site: site.tls(etcd_key=site.password_file),
        ["etcd_key", "holds no PEM key"],
    ),
    (
        "key with a passphrase",
        lambda site: site.tls(etcd_key=encrypted(site)),
        ["etcd_key", "is encrypted"],
    ),
]


def certified(site: Site, pair: tuple[str, str]) -> dict[str, Any]:
    return site.tls(etcd_cert=pair[0], etcd_key=pair[1])


def encrypted(site: Site) -> str:
    path = f"{site.folder}/encrypted.pem"
    lock_key(site.key, path)
    return path


@pytest.mark.parametrize(
    ("keys", "words"),
    [pytest.param(keys, words, id=name) for name, keys, words in TLS_FAULTS],
)
def test_tls_that_fails_says_what_to_mend(
    site: Site, keys: Callable[[Site], dict[str, Any]], words: list[str]
) -> None:
    said = site.refused(site.store(**keys(site)))
    for word in words:
        assert word.format(port=site.etcd.port, plain_port=site.etcd.plain_port) in said
    assert "urllib3" not in said
    assert "Error(" not in said, "an exception's innards are shown"
    assert site.etcd.keys() == {}


def test_links_inside_the_node_work_whatever_is_wrong_with_the_files(
    linked: Cluster, node: Node, far: Node, site: Site
) -> None:
    keys = site.tls()
    os.unlink(site.ca_cert)
    link(linked, node, node, keys)
    wait_etcd(node, keys, "etcd_ca_cert")
    child = node.wait_child()

    mendings: list[tuple[str, Callable[[], object]]] = [
        ("etcd_ca_cert", lambda: put(site.stranger.ca, site.ca_cert)),
        ("not trusted", lambda: site.show(site.authority.issue("expired", expired=True))),
        ("not trusted", lambda: put(site.authority.ca, site.ca_cert)),
        ("refuses the client certificate", lambda: write(site.key, b"")),
        ("holds no PEM key", lambda: site.show(site.client)),
    ]
    for said, mend in mendings:
        wait_etcd(node, keys, said)
        assert site.etcd.keys() == {}
        mend()
    wait_etcd(node, keys, None)
    wait_for("the pods' keys", lambda: site.etcd.get("/ratchet/association/a/id"))
    assert node.children() == [child]
    # An operator who reads the log alone is told as well.
    assert 'msg="etcd is away"' in node.log()
    assert f"etcd_ca_cert {site.ca_cert}" in node.log()
    assert "Traceback" not in node.log()


def test_certificates_are_renewed_under_a_child_that_runs(
    linked: Cluster, node: Node, far: Node, site: Site
) -> None:
    keys = site.tls()
    link(linked, node, far, keys)
    children = [node.wait_child(), far.wait_child()]

    # Another CA for both sides; until the nodes are given theirs, etcd is away.
    site.etcd.stop()
    old = site.etcd.ca_cert, site.etcd.server
    site.etcd.ca_cert = site.stranger.ca
    site.etcd.server = site.stranger.issue("server", hosts=f"IP:{site.etcd.address}")
    try:
        site.etcd.start()
        wait_etcd(node, keys, "not trusted")
        put(site.stranger.ca, site.ca_cert)
        wait_etcd(node, keys, "refuses the client certificate")
        site.show(site.stranger.issue("client"))
        for at in (node, far):
            wait_etcd(at, keys, None)
        # A link between the nodes, by what they say to each other from now on.
        third, fourth = linked.pod("c"), linked.pod("d")
        node.add(third, in1_in2("d"), **keys).succeeded()
        far.add(fourth, PAIR, **keys).succeeded()
        third.netns.wait_ping("192.168.2.101")
        assert [node.wait_child(), far.wait_child()] == children
        for attachment in list(node.attachments.values()):
            node.delete(attachment.pod).succeeded()
        for attachment in list(far.attachments.values()):
            far.delete(attachment.pod).succeeded()
        wait_for("the pods' keys to go", lambda: "/ratchet/nodes/" not in site.etcd.tree())
        wait_for_no_records(node, far)
    finally:
        site.etcd.stop()
        site.etcd.ca_cert, site.etcd.server = old
        site.etcd.start()


def test_a_watch_that_waits_does_not_keep_an_old_certificate_in_use(site: Site) -> None:
    """A connection that etcd has accepted stays open; what is asked next goes by the new files."""
    store = site.store(**site.tls())
    assert site.works(store)
    site.show(site.stranger.issue("client"))
    assert "refuses the client certificate" in site.refused(store)
    site.show(site.client)
    assert site.works(store)


# Users


def test_pods_are_linked_by_a_certificate_that_names_a_user(
    linked: Cluster, node: Node, far: Node, users: Site
) -> None:
    """TLS and authentication together; the user may use the prefix alone."""
    users.show(users.authority.issue("certified"))
    link(linked, node, far, users.tls())
    wait_etcd(node, users.tls(), None)
    assert linked.etcd.keys() == {}


def test_a_user_over_tls_needs_both_certificate_and_password(users: Site) -> None:
    assert users.works(users.store(**users.user(**users.tls())))
    assert "etcd_username" in users.refused(users.store(**users.tls()))
    assert "client certificate" in users.refused(
        users.store(**users.user(**users.tls(etcd_cert=None, etcd_key=None)))
    )


@pytest.mark.parametrize("name", ["nobody", "reader", "elsewhere", "idle"])
def test_a_user_who_may_not_is_named(users: Site, name: str) -> None:
    said = users.refused(users.store(**users.user(name)))
    for word in (f"refuses the user {name}", users.password_file, "/ratchet", "roles"):
        assert word in said
    assert "stäple" not in said


def test_a_wrong_password_is_said_and_a_new_one_taken_up(users: Site) -> None:
    store = users.store(**users.user())
    assert users.works(store)
    users.say("canary-wrong")
    said = users.refused(store)
    assert "refuses the user node" in said
    assert users.password_file in said
    assert "canary" not in said
    users.say(PASSWORD)
    assert users.works(store)


@pytest.mark.parametrize("form", ["{}", "{}\n", "\r\n {} \r\n"])
def test_white_space_around_a_password_is_ignored(users: Site, form: str) -> None:
    users.say(form.format(PASSWORD))
    assert users.works(users.store(**users.user()))


@pytest.mark.parametrize(
    ("written", "word"),
    [(b"", "is empty"), (b" \n", "is empty"), (b"canary\xff\xfe", "is not UTF-8")],
)
def test_a_password_file_without_a_password_is_an_error(
    site: Site, written: bytes, word: str
) -> None:
    site.say(written)
    said = site.refused(site.store(**site.user()))
    assert f"etcd_password_file {site.password_file}" in said
    assert word in said
    assert "canary" not in said


def test_pods_are_linked_when_the_password_is_mended_under_a_child_that_runs(
    linked: Cluster, node: Node, far: Node, users: Site
) -> None:
    """By a user who may use the prefix alone."""
    keys = users.user()
    os.unlink(users.password_file)
    left, right = linked.pod("a"), linked.pod("b")
    node.add(left, in1_in2("b"), **keys).succeeded()
    far.add(right, PAIR, **keys).succeeded()
    wait_etcd(node, keys, f"etcd_password_file {users.password_file}")
    assert f"etcd_password_file {users.password_file}" in node.log()
    users.say("canary-wrong")
    wait_for("the log to name the user", node.log, until=lambda log: "refuses the user node" in log)
    hold_for("no link without etcd", lambda: not left.netns.link("in1"), duration_s=0.3)
    users.say(PASSWORD)
    left.netns.wait_ping("192.168.2.101", timeout_s=BCRYPT_S)
    wait_etcd(node, keys, None)
    assert "canary" not in node.log()
    assert linked.etcd.keys() == {}
    # The pods' keys go by thirty requests, one after the other: without bcrypt (see BCRYPT_S).
    # That this user may remove them is shown with a certificate in the place of the password.
    users.etcd.admit_guests()


def test_the_next_member_is_asked_with_the_same_password(session_cluster: Cluster) -> None:
    addresses = [f"10.99.0.{number}" for number in (1, 2, 3)]
    namespace = session_cluster.underlay
    folder = Path(session_cluster.directory) / f"members-{secrets.token_hex(4)}"
    folder.mkdir(parents=True)
    for address in addresses[1:]:
        namespace.ip("addr", "add", f"{address}/32", "dev", "lo")
    members = Members(namespace, addresses, random_port(), str(folder))
    password = folder / "password"
    password.write_text("right\n")
    try:
        members.start()
        members.require_users()
        members.role("ratchet", PREFIX_ONLY, PREFIX_ONLY)
        members.user("node", "right", "ratchet")
        store = EtcdV2Store(
            Config.parse(
                {
                    "name": "net",
                    "delegate": {"type": "bridge"},
                    "etcd_host": members.hosts,
                    "etcd_username": "node",
                    "etcd_password_file": str(password),
                }
            )
        )

        def ask() -> bool:
            with contextlib.suppress(StoreError):
                store.set("probe", secrets.token_hex(4))
                return True
            return False

        assert namespace.do(ask)
        members.kill(addresses[0])
        wait_for("another member to be asked", lambda: namespace.do(ask), timeout_s=AWAY_S)
        password.write_text("wrong\n")
        assert "refuses the user node" in namespace.do(lambda: refusal(store))
    finally:
        members.stop()
        for address in addresses[1:]:
            namespace.ip("addr", "delete", f"{address}/32", "dev", "lo")
        shutil.rmtree(folder)


def test_users_are_set_up_as_the_documentation_says(session_cluster: Cluster) -> None:
    """Every command of the page is run; the rights that it gives are enough and not more."""
    page = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
    start = page.index("    E=http://ETCD:2379/v2/auth")
    etcd = session_cluster.etcd
    folder = Path(session_cluster.directory) / f"documented-{secrets.token_hex(4)}"
    folder.mkdir()
    own = Etcd(etcd.namespace, etcd.address, random_port(), str(folder))
    commands = page[start : page.index("\n\n", start)].replace(
        "ETCD:2379", f"{own.address}:{own.port}"
    )
    password = folder / "password"
    password.write_text("OURS\n")
    try:
        own.start()
        done = subprocess.run(
            own.namespace.command("sh", "-ec", commands), capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr

        def store(prefix: str, **user: str) -> EtcdV2Store:
            keys = {"etcd_host": own.address, "etcd_port": own.port, "etcd_prefix": prefix}
            return EtcdV2Store(
                Config.parse({"name": "net", "delegate": {"type": "x"}, **keys, **user})
            )

        user = {"etcd_username": "ratchet", "etcd_password_file": str(password)}
        ours = store("/ratchet", **user)
        own.namespace.do(lambda: ours.set("association/a/id", "1"))
        assert own.namespace.do(lambda: ours.tree("association", recursive=True))[0] != {}
        others = store("/ratchets", **user), store("/other", **user), store("/ratchet")
        for said in own.namespace.do(lambda: [refusal(other) for other in others]):
            assert "refuses the user ratchet" in said or "wants a user" in said
    finally:
        own.stop()
        shutil.rmtree(folder)


# ratchetctl


def clean(site: Site, *options: str) -> tuple[int, str]:
    done = subprocess.run(
        site.etcd.namespace.command(
            *(sys.executable, "-m", "ratchetctl", "clean", "--yes"),
            *("--etcd-host", site.etcd.address, "--etcd-port", str(site.etcd.port)),
            *("--ca-cert", site.ca_cert, "--cert", site.cert, "--key", site.key, *options),
        ),
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout + done.stderr


def test_ratchetctl_cleans_over_tls_as_a_user(users: Site) -> None:
    users.etcd.role("cleaner", ["/ratchet*"], ["/ratchet*"])
    users.etcd.user("cleaner", PASSWORD, "cleaner")
    users.etcd.put("/ratchet/vxlanid", "12")
    password = ("--password-file", users.password_file)

    code, said = clean(users, "--username", "node", *password)
    assert code != 0, "the nodes' role removes the directory itself"
    assert "refuses" in said
    code, said = clean(users, "--username", "cleaner", *password)
    assert (code, said.strip()) == (0, "removed /ratchet")
    assert users.etcd.tree() == {}
