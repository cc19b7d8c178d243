"""The configuration follows what it is made from, and gives way where it must."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from ratchetctl.errors import InstallError
from ratchetctl.install import following, installation
from ratchetctl.install.cluster import Cluster, Wanted
from ratchetctl.install.following import Follower
from tests.unit.ratchetctl.install.folders import CALICO_LIST, FLANNEL_LIST
from tests.unit.ratchetctl.install.nodes import FLANNEL, Node, tree, with_all

OURS = "00-ratchet.json"


class FakeCluster(Cluster):
    """An API server that gives the next token, or none; and says what it is told to say."""

    def __init__(self, *answers: Wanted) -> None:
        self.given: str | None = "one"
        self.answers = list(answers)

    def token(self) -> str:
        if self.given is None:
            raise InstallError("the API server answers 403")
        return self.given

    def wants(self, daemonset: str) -> Wanted:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Run:
    """A follower on a node with flannel."""

    def __init__(self, node: Node) -> None:
        node.write(FLANNEL)
        self.node = node
        self.site = replace(with_all(node), settings_file=str(node.root / "settings.json"))
        self.clock, self.cluster = Clock(), FakeCluster(Wanted.YES)
        self.follower = Follower(self.site, self.cluster, self.clock)
        self.look()

    def look(self, later_s: float = 1.0) -> None:
        self.clock.now += later_s
        self.follower.look()

    @property
    def flannel(self) -> Path:
        return self.node.conf_dir / "10-flannel.conflist"

    @property
    def ours(self) -> Path:
        return self.node.conf_dir / OURS


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(Node(tmp_path))


def test_it_writes_the_configuration_and_then_nothing(run: Run) -> None:
    assert run.node.first()[0] == OURS
    before = tree(run.node.conf_dir)
    inode = run.ours.stat().st_ino
    run.look()
    assert tree(run.node.conf_dir) == before
    assert run.ours.stat().st_ino == inode


@pytest.mark.parametrize("by_rename", [False, True])
def test_a_change_of_the_network_is_followed(run: Run, by_rename: bool) -> None:
    text = json.dumps({**FLANNEL_LIST, "disableCheck": True})
    if by_rename:
        (run.node.conf_dir / "new").write_text(text)
        os.replace(run.node.conf_dir / "new", run.flannel)
    else:
        run.flannel.write_text(text)
    run.look()
    assert run.node.ours()["delegate"]["disableCheck"] is True


def test_a_half_written_network_changes_nothing_until_it_is_whole(run: Run) -> None:
    before = run.ours.read_text()
    whole = json.dumps({**FLANNEL_LIST, "disableCheck": True})
    run.flannel.write_text(whole[:20])
    run.look()
    assert run.ours.read_text() == before
    run.flannel.write_text(whole)
    run.look()
    assert run.node.ours()["delegate"]["disableCheck"] is True


def test_another_plugin_that_comes_first_becomes_the_delegate(run: Run) -> None:
    (run.node.conf_dir / "05-calico.conflist").write_text(json.dumps(CALICO_LIST))
    run.look()
    assert run.node.first()[0] == OURS
    assert run.node.ours()["delegate"] == CALICO_LIST


def test_our_file_comes_back_when_somebody_removes_or_edits_it(run: Run) -> None:
    text = run.ours.read_text()
    run.ours.unlink()
    run.look()
    assert run.ours.read_text() == text
    run.ours.write_text(text.replace("10.96.7.7", "10.96.7.8"))
    run.look()
    assert run.ours.read_text() == text


def test_a_plugin_that_goes_takes_the_node_with_it_after_a_while(run: Run) -> None:
    """A node without its plugin's configuration is NotReady, as it would be without Ratchet."""
    flannel = run.flannel.read_text()
    run.flannel.unlink()
    run.look()
    assert run.ours.exists(), "a plugin may write its file anew at any moment"
    run.look(following.GRACE_S + 1)
    assert not run.ours.exists()
    run.look()
    run.flannel.write_text(flannel)
    run.look()
    assert run.node.first()[0] == OURS


def test_a_plugin_that_replaces_its_file_in_two_steps_is_not_noticed(run: Run) -> None:
    flannel = run.flannel.read_text()
    for _ in range(3):
        run.flannel.unlink()
        run.look(following.GRACE_S - 1)
        run.flannel.write_text(flannel)
        run.look()
        assert run.ours.exists()


def test_settings_are_followed_and_wrong_ones_leave_what_was(
    run: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    before = run.ours.read_text()
    (run.node.root / "settings.json").write_text('{"wait": "sometimes"}')
    run.look()
    run.look(following.RETRY_S + 1)
    assert run.ours.read_text() == before
    assert capfd.readouterr().err.count("sometimes") == 1
    (run.node.root / "settings.json").write_text('{"wait": "none"}')
    run.look(following.RETRY_S + 1)
    assert run.node.ours()["wait"] == "none"


def test_certificates_are_renewed(run: Run) -> None:
    (run.node.root / "certificates" / "tls.crt").write_text("renewed")
    run.look()
    assert (run.node.conf_dir / "ratchet.node" / "etcd" / "tls.crt").read_text() == "renewed"


def test_tokens_are_renewed_and_the_pods_own_is_the_last_resort(run: Run) -> None:
    token = run.node.conf_dir / "ratchet.node" / "token"
    assert token.read_text() == "one"
    run.cluster.given = "two"
    run.look()
    assert token.read_text() == "two"
    run.cluster.given = None
    run.look()
    assert token.read_text() == "token"
    (run.node.root / "account" / "token").write_text("the kubelet's next")
    run.look()
    assert token.read_text() == "the kubelet's next"


def test_cilium_is_not_fought_with(run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    aside = run.node.conf_dir / f"{OURS}.cilium_bak"
    for _ in range(2):
        os.replace(run.ours, aside)
        run.look()
        assert not run.ours.exists()
        assert not aside.exists()
        run.look(following.PUSHED_ASIDE_S - 2)
        assert not run.ours.exists()
        run.look(3)
        assert run.ours.exists()
    assert "cni.exclusive" in capfd.readouterr().err


def test_what_cilium_has_renamed_of_ours_is_taken_away_and_nothing_else(run: Run) -> None:
    theirs = run.node.conf_dir / "10-flannel.conflist.cilium_bak"
    theirs.write_text(json.dumps(FLANNEL_LIST))
    os.replace(run.ours, run.node.conf_dir / f"{OURS}.cilium_bak")
    installation.uninstall(run.site)
    assert sorted(os.listdir(run.node.conf_dir)) == [
        "10-flannel.conflist",
        "10-flannel.conflist.cilium_bak",
        "multus.d",
    ]


@pytest.mark.parametrize(
    ("answers", "is_over"),
    [
        ([Wanted.YES], False),
        ([Wanted.NO], True),
        ([Wanted.UNKNOWN], False),
        ([Wanted.REFUSED], False),
        # The service account's rights go before it does, and its token is known for a while.
        ([Wanted.REFUSED, Wanted.REFUSED, Wanted.NO], True),
        ([Wanted.UNKNOWN, Wanted.YES], False),
    ],
)
def test_ratchet_leaves_only_when_it_is_known_to_be_leaving(
    answers: list[Wanted], is_over: bool
) -> None:
    slept: list[float] = []
    cluster = FakeCluster(*answers)
    assert following.is_over(cluster, "ratchet", slept.append) is is_over
    assert sum(slept) <= following.GOODBYE_S
