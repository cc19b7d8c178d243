"""Device kinds: what a node runs when its file does not say so, and how it names interfaces.

The table is in `kinds_table.py`; a person's own file adds kinds to it, or says more of one. A kind
that is not in the table is taken as it is: image and command come from the topology's file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ratchetctl.errors import TopologyError
from ratchetctl.topo import documents
from ratchetctl.topo.findings import Findings
from ratchetctl.topo.kinds_table import TABLE
from ratchetctl.topo.renaming import Renaming
from ratchetctl.topo.tree import Fields, Table, Tree, shown

ALPINE = "alpine:3"
ROUTERS = ("frr", "bird", "gobgp")


@dataclass(frozen=True, slots=True)
class Kind:
    """What a kind brings along: `config_path` is where it reads its startup configuration.

    `interactive` kinds run a shell that ends without a terminal, as containerlab gives it one.
    `renames` turn the vendor's interface names into the kernel's. A kind that `waits` looks for its
    interfaces when it starts only: its container starts when all are there. `router` says in which
    language its configuration is.
    """

    image: str | None = None
    command: tuple[str, ...] | None = None
    env: tuple[tuple[str, str], ...] = ()
    config_path: str | None = None
    interactive: bool = False
    waits: bool = False
    router: str | None = None
    renames: tuple[Renaming, ...] = ()
    is_known: bool = True

    @property
    def is_image(self) -> bool:
        """Whether the image alone has the program that makes a node this kind."""
        return self.is_known and not self.interactive and self.router is None


ANY = Kind(is_known=False)


def kind(name: str) -> Kind:
    return KINDS.get(name, ANY)


def extend(path: str) -> None:
    """Add the kinds of a person's file to the table. Raises TopologyError with all mistakes."""
    name, text = documents.read_text(path)
    KINDS.update(parse(name, text, KINDS))


def parse(name: str, text: str, known: Mapping[str, Kind]) -> dict[str, Kind]:
    """Read a table of kinds. Raises TopologyError with everything that is wrong."""
    findings = Findings()
    trees = documents.yaml_documents(name, text)
    if len(trees) != 1 or not isinstance(trees[0], Table):
        raise TopologyError(f"{name}: must be one mapping, of the kinds' names to what they are")
    found: dict[str, Kind] = {}
    for title, value in Fields.of(trees[0], "the file", findings).entries():
        fields = Fields.of(value, f"kind {title.text}", findings, at=title.where)
        found[title.text] = _kind(title.text, fields, {**known, **found})
    findings.raise_errors()
    return found


def _kind(name: str, fields: Fields, known: Mapping[str, Kind]) -> Kind:
    """Read one kind: what it does not say is as before, or as the kind that it is like."""
    findings = fields.findings
    like = fields.text("like")
    if like is not None and like not in known:
        findings.error(fields.at("like"), f"there is no kind {shown(like)}", "name one before it")
    base = known.get(like or name, Kind())
    router, config = fields.text("router"), fields.text("config")
    if router is not None and router not in ROUTERS:
        findings.error(
            fields.at("router"), f"router {shown(router)}: allowed is {', '.join(ROUTERS)}"
        )
    if config is not None and not config.startswith("/"):
        findings.error(fields.at("config"), f"config {shown(config)} must be a path from /")
    command = tuple(fields.texts("command"))
    env = {**dict(base.env), **dict(fields.pairs("env"))}
    rules = [
        _renaming(item, f"{fields.what}: interfaces", findings)
        for item in fields.items("interfaces")
    ]
    made = replace(
        base,
        image=fields.text("image") or base.image,
        command=command or base.command,
        env=tuple(env.items()),
        config_path=config or base.config_path,
        interactive=_flag(fields, "shell", base.interactive),
        waits=_flag(fields, "wait", base.waits),
        router=router or base.router,
        renames=(*(rule for rule in rules if rule), *base.renames),
    )
    _tell_unread(fields)
    if made.router is not None and made.config_path is None:
        findings.error(
            fields.where, f"{fields.what}: a router needs config, the path of its configuration"
        )
    return made


def _renaming(item: Tree, what: str, findings: Findings) -> Renaming | None:
    fields = Fields.of(item, what, findings)
    name, becomes = fields.text("name"), fields.text("becomes")
    _tell_unread(fields)
    if name is None or becomes is None:
        findings.error(fields.where, f"{what}: write {{name: PATTERN, becomes: NAME}}")
        return None
    try:
        return Renaming.parse(name, becomes)
    except ValueError as error:
        findings.error(fields.where, f"{what}: {error}")
        return None


def _flag(fields: Fields, key: str, default: bool) -> bool:
    text = fields.text(key)
    if text not in (None, "true", "false"):
        fields.findings.error(fields.at(key), f"{fields.what}: {key} must be true or false")
    return default if text is None else text == "true"


def _tell_unread(fields: Fields) -> None:
    for key, (place, _) in fields.table.entries.items():
        if key not in fields.read:
            fields.findings.error(
                place.where,
                f"{fields.what}: {shown(key)} is not a key",
                f"allowed are {', '.join(sorted(fields.read))}",
            )


KINDS: dict[str, Kind] = parse("Ratchet's kinds", TABLE, {})
