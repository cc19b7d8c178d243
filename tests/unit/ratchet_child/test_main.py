"""`ratchet-child` as a supervisor or a person starts it: what is wrong is one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from ratchet_child.main import main


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "cannot be read (No such file or directory)"),
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "is not a JSON object"),
        ('{"name": "x", "etcd_prot": "1"}', "'etcd_prot' is not a key"),
        ('{"name": "x", "attach": "agent"}', 'as attach is "agent"'),
    ],
)
def test_a_configuration_that_cannot_be_used_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None, said: str
) -> None:
    path = tmp_path / "10-ratchet.conf"
    if text is not None:
        path.write_text(text)
    assert main(["--config", str(path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("ratchet-child: ")
    assert said in error
    assert "internal error" not in error


@pytest.mark.parametrize(
    ("argument", "value", "said"),
    [
        ("--node-name", "Node_1", "as `kubectl get nodes` has it"),
        ("--node-name", "", "is not a node's name"),
        ("--report", "events,colours", "allowed are events, conditions, network-status, links"),
        ("--report", "", "with commas between them, or none"),
    ],
)
def test_an_argument_of_the_agent_that_is_wrong_is_named(
    capsys: pytest.CaptureFixture[str], argument: str, value: str, said: str
) -> None:
    with pytest.raises(SystemExit):
        main(["--config", "x", "--stay", argument, value])
    error = capsys.readouterr().err
    assert argument in error
    assert said in error
