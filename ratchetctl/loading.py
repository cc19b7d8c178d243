"""PyYAML's loaders as manifests need them: strict where Kubernetes is, and bounded."""

from __future__ import annotations

import yaml

from ratchetctl import scalars

MAX_KEYS = 10_000  # of one object


class _Strict(yaml.constructor.SafeConstructor):
    """Refuses a key given twice, and merge keys that double what they hold over and over.

    YAML 1.2 §3.2.1.3 forbids the first and Kubernetes refuses it; PyYAML would take the last one.
    """

    yaml_implicit_resolvers = scalars.RESOLVERS
    yaml_constructors = {  # noqa: RUF012 - PyYAML's own way
        **yaml.constructor.SafeConstructor.yaml_constructors,
        **scalars.CONSTRUCTORS,
    }

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        super().flatten_mapping(node)
        if len(node.value) > MAX_KEYS:
            raise yaml.constructor.ConstructorError(
                None, None, f"more than {MAX_KEYS} keys", node.start_mark
            )

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[object, object]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if key in seen and key != "<<":
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is given twice", key_node.start_mark
                )
            if key is not None:
                seen.add(key)
        made: dict[object, object] = super().construct_mapping(node, deep)
        return made


class Loader(_Strict, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """In C where that was built in."""


class CarefulLoader(_Strict, yaml.SafeLoader):
    """For what the other one may not survive."""
