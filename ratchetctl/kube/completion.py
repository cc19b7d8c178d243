"""Completion in shells: for `kubectl-ratchet` itself, and for kubectl, which asks by a program.

`answer` answers kubectl with what is found here.
"""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem, ShellComplete

from ratchetctl.api.client import connect
from ratchetctl.api.resources import PODS
from ratchetctl.errors import OperatorError


def pods(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Propose the names of labelled pods; none when the cluster does not tell."""
    options = context.params
    try:
        with connect(
            options.get("kubeconfig"), options.get("context"), options.get("namespace")
        ) as client:
            found = client.list(PODS, labels="ratchet=true").items
    except (OperatorError, OSError):
        return []
    names = sorted(str(one["metadata"]["name"]) for one in found)
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def proposals(command: click.Command, words: list[str], incomplete: str) -> list[CompletionItem]:
    """Return what may stand where somebody is typing."""
    return ShellComplete(command, {}, "kubectl-ratchet", "").get_completions(words, incomplete)
