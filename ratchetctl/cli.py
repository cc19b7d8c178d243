"""The commands of `ratchetctl`: status, installing, topologies, the simulator, cleaning up.

Each sub-command lives in a module of its own.
"""

from __future__ import annotations

import click

from ratchet import __version__
from ratchetctl import capture, clean, demo, link, status, wait
from ratchetctl.install import certificates
from ratchetctl.install import command as install
from ratchetctl.kube import command as kube
from ratchetctl.sim import command as sim
from ratchetctl.topo import command as topo


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="ratchetctl", message="%(prog)s %(version)s")
def cli() -> None:
    """Operate Ratchet, the CNI plugin that wires pods together as cables wire routers."""


@cli.command()
def version() -> None:
    """Print the version."""
    click.echo(f"ratchetctl {__version__}")


cli.add_command(capture.capture)
cli.add_command(certificates.certificates)
cli.add_command(clean.clean)
cli.add_command(demo.demo)
cli.add_command(kube.kube)
cli.add_command(link.link)
cli.add_command(install.node)
cli.add_command(sim.sim)
cli.add_command(status.status)
cli.add_command(topo.topo)
cli.add_command(wait.wait)
