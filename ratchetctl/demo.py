"""`ratchetctl demo`."""

import click


@click.command()
def demo() -> None:
    """Show what Ratchet does."""
