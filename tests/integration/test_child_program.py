"""What the child's program is made of: nothing that only tests, or nobody, has a use for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults import doomed_child
from tests.lab.cluster import Cluster
from tests.lab.polling import wait_for
from tests.lab.runtime import PAIR, Node

DIED = "the child has died"


def modules_of(statement: str) -> set[str]:
    """Return what an interpreter of its own has loaded from files after a statement."""
    program = (
        f"import sys; {statement}\n"
        "print(*(name for name, one in sys.modules.items() if getattr(one, '__file__', None)))"
    )
    argv = [sys.executable, "-c", program]
    return set(subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split())


def packages_of(statement: str) -> set[str]:
    return {name.partition(".")[0] for name in modules_of(statement)}


def test_the_child_does_not_load_dnspython() -> None:
    loaded = packages_of("import ratchet_child.store.etcd_v2")
    assert "etcd" in loaded
    assert "dns" not in loaded


def test_a_link_inside_a_node_waits_for_no_library_of_etcd() -> None:
    loaded = packages_of("import ratchet_child.serving")
    assert "ratchet_child" in loaded
    assert not loaded & {"etcd", "urllib3", "requests", "http", "email", "ssl", "logging"}


def test_no_class_of_the_child_is_compiled_when_it_starts() -> None:
    """As the standard library's are: a third of the time until the child has been imported."""
    assert "dataclasses" not in packages_of("import ratchet_child.serving")
    assert "dataclasses" not in packages_of("import ratchet_child.agent.agent")


def test_who_becomes_the_supervisor_imports_nothing_that_serves() -> None:
    """The child that it starts imports that once more."""
    loaded = modules_of("import ratchet_child.command")
    assert not loaded & {"ratchet_child.child", "ratchet_child.engine", "ratchet_child.service"}


@pytest.mark.root
def test_no_variable_of_the_environment_kills_the_child(cluster: Cluster, node: Node) -> None:
    pod = cluster.pod("a")
    node.add(pod, PAIR, environ={doomed_child.VARIABLE: "1"}).succeeded()
    child = node.wait_child()
    wait_for("it to have published", lambda: cluster.etcd.get("/ratchet/association/a/id"))
    assert node.wait_child() == child
    assert DIED not in node.log()


@pytest.mark.root
def test_the_faults_own_child_dies_at_its_step_and_only_once(
    cluster: Cluster, node: Node, tmp_path: Path
) -> None:
    """Otherwise the tests of faults would test nothing."""
    program = tmp_path / "ratchet-child"
    program.write_text(
        f'#!/bin/sh\n{doomed_child.VARIABLE}=5 exec {sys.executable} {doomed_child.__file__} "$@"\n'
    )
    program.chmod(0o755)
    tmp_path.chmod(0o755)
    pod = cluster.pod("a")
    node.add(pod, PAIR, child_path=os.fspath(program)).succeeded()
    wait_for("it to die", lambda: DIED in node.log())
    wait_for("the next one", lambda: cluster.etcd.get("/ratchet/association/a/id"))
    assert node.log().count(DIED) == 1
