"""`ratchetctl link`: something of a link that is there is set, and set back to what labels say.

The child writes it into the link's declaration, so that the nodes of both pods do it, and so that
it lasts: until it is reset, or until the link's primary is created again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from ratchet import client, messages, status
from ratchet.attachments import Directory
from ratchet.config import Config
from ratchet.errors import ChildError
from ratchet.impairment import QUANTITIES, Impairment
from ratchet.links import LEAST_MTU, MOST_MTU, Override
from ratchetctl import node, target, wording
from ratchetctl.errors import StatusError
from ratchetctl.remote import Remote
from ratchetctl.target import Target

TIMEOUT_S = 10.0


@click.group()
def link() -> None:
    """Change links that are up, until they are reset or their primary is created again.

    The pod is on this node; with --sim in a simulation, with --cluster on a cluster.
    """


def _quantities(command: Callable[..., Any]) -> Callable[..., Any]:
    for quantity in reversed(QUANTITIES):
        command = click.option(f"--{quantity.label}", metavar="VALUE", help=quantity.allowed)(
            command
        )
    return command


@link.command()
@target.options
@_quantities
@click.option("--both", is_flag=True, help="of what the other end sends, too")
def impair(interface: Target | Remote, both: bool, **values: str | None) -> None:
    """Slow, delay or lose what an interface sends.

    For example: ratchetctl link impair r1:eth1 --delay 10ms --loss 0.5

    What is not named is none: without any option the interface sends at once, whatever labels say.
    """
    read = {}
    for quantity in QUANTITIES:
        value = values[quantity.label]
        if value is not None:
            try:
                read[quantity.name] = quantity.read(value)
            except ValueError as error:
                why = f"--{quantity.label} {value!r}: allowed is {quantity.allowed}"
                raise click.UsageError(why) from error
    wanted = Impairment(**read)
    if wanted.jitter_us is not None and wanted.delay_us is None:
        raise click.UsageError("--jitter needs a --delay")
    _send(interface, Override(impairment=wanted, pair_impairment=wanted if both else None))


@link.command(name="set")
@target.options
@click.option("--mtu", type=click.IntRange(LEAST_MTU, MOST_MTU), required=True, help="at both ends")
def set_(interface: Target | Remote, mtu: int) -> None:
    """Set the MTU of a link."""
    _send(interface, Override(mtu_bytes=mtu))


@link.command()
@target.options
def down(interface: Target | Remote) -> None:
    """Pull a cable out: both ends stay, show NO-CARRIER, and pass nothing on."""
    _send(interface, Override(is_down=True))


@link.command()
@target.options
def up(interface: Target | Remote) -> None:
    """Plug a cable in again that `down` has pulled out."""
    _send(interface, Override(is_down=False))


@link.command()
@target.options
def reset(interface: Target | Remote) -> None:
    """Have a link be again what its labels say."""
    _send(interface, None)


def _send(interface: Target | Remote, change: Override | None) -> None:
    """Ask the child, and wait until the pod's end is as it was asked. *Raises* StatusError."""
    if isinstance(interface, Remote):
        interface.repeat()
    config = Config.parse({"name": "link", "state_dir": interface.state_dir})
    name = _attachment(interface)
    said = None if change is None else change.to_json()
    try:
        request = messages.Set(name, interface.ifname, said, TIMEOUT_S)
        answer = client.ask(config, request, TIMEOUT_S + node.ANSWER_TIMEOUT_S)
    except ChildError as error:
        raise StatusError(f"{error.msg}: {error.details}".rstrip(": ")) from error
    if answer is None:
        raise StatusError(f"no child runs that could set anything of {interface}")
    failure = messages.Failure.from_json(answer)
    if failure is not None:
        raise StatusError(f"{failure.msg}: {failure.details}".rstrip(": "))
    if not status.Links.from_json(answer).complete:
        raise StatusError(
            f"{interface} has not been changed within {TIMEOUT_S:.0f} s; it will be as soon as etcd"
            " answers: see `ratchetctl status`"
        )
    if change is not None and change.is_down is None:
        _tell_fault(interface)


def _tell_fault(interface: Target) -> None:
    """Say what of a change the kernel has refused: the link is up without it."""
    for pod in node.read(interface.state_dir).pods:
        for one in pod.links if pod.container_id == interface.container_id else ():
            if one.ifname == interface.ifname and one.fault is not None:
                click.echo(f"note: {interface}: {wording.plain(one.fault)}", err=True)


def _attachment(interface: Target) -> str:
    for one in Directory(interface.state_dir).live():
        if one.container_id == interface.container_id:
            return one.name
    raise StatusError(f"{interface} has no record: its pod has gone")
