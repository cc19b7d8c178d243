"""The guard of tests/unit itself."""

from __future__ import annotations

import socket
import subprocess

import pytest


def test_a_unit_test_cannot_open_a_socket() -> None:
    with pytest.raises(AssertionError, match=r"socket\.__new__"):
        socket.socket()


def test_a_unit_test_cannot_start_a_process() -> None:
    with pytest.raises(AssertionError, match=r"subprocess\.Popen"):
        subprocess.run(["true"])
