"""What a person has given to a command."""

from __future__ import annotations

import click
from click.testing import CliRunner

from ratchetctl import given


@click.group()
def tool() -> None:
    pass


@tool.group()
def link() -> None:
    pass


@link.command(name="set")
@click.argument("interface")
@click.option("--mtu", type=int)
@click.option("-s", "--snaplen", default=100)
@click.option("--both", is_flag=True)
@click.option("--name", default="x")
def set_(**_: object) -> None:
    click.echo(" ".join((*given.words(), *given.again(("name",)))))


def said(*arguments: str) -> str:
    done = CliRunner().invoke(tool, ["link", "set", *arguments])
    assert done.exit_code == 0, done.output
    return done.stdout.strip()


def test_a_command_can_be_written_again_as_it_was_given() -> None:
    assert said("a:b") == "link set"
    assert said("a:b", "--mtu", "1300", "--both", "-s", "64") == (
        "link set --mtu 1300 --snaplen 64 --both"
    )


def test_what_is_the_same_as_the_default_was_given_all_the_same() -> None:
    assert said("--snaplen", "100", "a:b", "--name", "y") == "link set --snaplen 100"
