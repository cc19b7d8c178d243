"""The commands of `ratchetctl`: status, installing, topologies, the simulator, cleaning up.

Each sub-command lives in a module of its own, which is loaded when the command is used: all of them
together take a quarter of a second, and people wait for each command.
"""

# ruff: noqa: PLC0415 - see the docstring

from __future__ import annotations

import click

from ratchet import __version__

_NAMES = (
    *("capture", "certificates", "clean", "demo", "kube", "link", "node", "sim", "status", "topo"),
    "wait",
)


class Commands(click.Group):
    """The group of all commands."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *_NAMES})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return _load(cmd_name) or super().get_command(ctx, cmd_name)


def _load(name: str) -> click.Command | None:
    match name:
        case "capture":
            from ratchetctl.capture import capture

            return capture
        case "certificates":
            from ratchetctl.install.certificates import certificates

            return certificates
        case "clean":
            from ratchetctl.clean import clean

            return clean
        case "demo":
            from ratchetctl.demo import demo

            return demo
        case "kube":
            from ratchetctl.kube.command import kube

            return kube
        case "link":
            from ratchetctl.link import link

            return link
        case "node":
            from ratchetctl.install.command import node

            return node
        case "sim":
            from ratchetctl.sim.command import sim

            return sim
        case "status":
            from ratchetctl.status import status

            return status
        case "topo":
            from ratchetctl.topo.command import topo

            return topo
        case "wait":
            from ratchetctl.wait import wait

            return wait
        case _:
            return None


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="ratchetctl", message="%(prog)s %(version)s")
def cli() -> None:
    """Operate Ratchet, the CNI plugin that wires pods together as cables wire routers."""


@cli.command()
def version() -> None:
    """Print the version."""
    click.echo(f"ratchetctl {__version__}")
