"""YAML that people write by hand: a key that is there twice is refused; YAML takes the last."""

from __future__ import annotations

from typing import Any

import yaml

from conf.errors import ConfigError

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def parse_yaml(text: str, where: str) -> Any:
    """The plain values of a document; ``where`` names it in errors.

    Raises:
        ConfigError: it is no YAML, or has a key twice; which and on which lines.
    """
    loader = _LOADER(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _check_keys(node, where, set())
        return loader.construct_document(node)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: 2026-02-30 is no date
        raise ConfigError(f"{where} is no YAML: {error}") from error
    finally:
        loader.dispose()


def _check_keys(node: yaml.Node, where: str, seen: set[int]) -> None:
    """Look at a node and all below it, once at those that several places share."""
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _check_keys(item, where, seen)
    elif isinstance(node, yaml.MappingNode):
        first: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if isinstance(key, yaml.ScalarNode):
                if key.value in first:
                    raise ConfigError(
                        f"{where} has the key {key.value!r} on line {first[key.value]} and once "
                        f"more on line {line}; expected each key of an entry once; remove one"
                    )
                first[key.value] = line
            _check_keys(value, where, seen)
