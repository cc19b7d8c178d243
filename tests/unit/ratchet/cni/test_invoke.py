from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ratchet.cni import invoke
from ratchet.cni.errors import DelegateError


def test_the_first_directory_that_has_the_plugin_wins(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "bridge").touch()
    (tmp_path / "dir" / "bridge").mkdir(parents=True)
    path = f":{tmp_path}/missing:{tmp_path}/dir:{tmp_path}/b:{tmp_path}/a"
    assert invoke.find("bridge", path) == f"{tmp_path}/b/bridge"


def test_a_missing_plugin_is_named_with_the_path() -> None:
    with pytest.raises(DelegateError) as caught:
        invoke.find("nosuch", "/nowhere:/else")
    assert "nosuch" in caught.value.msg
    assert "/nowhere:/else" in caught.value.details


@pytest.mark.parametrize("name", ["", ".", "..", "../sh", "/bin/sh", "a/b", "a\0b"])
def test_a_type_never_leaves_the_directories_of_cni_path(name: str) -> None:
    with pytest.raises(DelegateError):
        invoke.find(name, "/bin")


def test_the_environment_is_left_alone_when_nothing_changed_it() -> None:
    environ = {"LD_LIBRARY_PATH": "/a", "LD_LIBRARY_PATH_ORIG": "/b", "_PYI_X": "1"}
    assert invoke.clean_environ(environ) == environ


def test_a_frozen_program_hands_on_the_environment_that_it_got(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    environ = {"LD_LIBRARY_PATH": "/_internal:/a", "LD_LIBRARY_PATH_ORIG": "/a", "_PYI_X": "1"}
    assert invoke.clean_environ({**environ, "A": "b"}) == {"LD_LIBRARY_PATH": "/a", "A": "b"}
    assert invoke.clean_environ({"LD_LIBRARY_PATH": "/_internal"}) == {}


def test_the_locale_that_python_chose_for_itself_is_not_handed_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(invoke, "_was_given", lambda name: False)
    assert invoke.clean_environ({"LC_CTYPE": "C.UTF-8"}) == {}
    assert invoke.clean_environ({"LC_CTYPE": "de_DE.UTF-8"}) == {"LC_CTYPE": "de_DE.UTF-8"}
    monkeypatch.setattr(invoke, "_was_given", lambda name: True)
    assert invoke.clean_environ({"LC_CTYPE": "C.UTF-8"}) == {"LC_CTYPE": "C.UTF-8"}
