"""YAML in which a key stands once: of two the plain loader silently takes the last."""

from typing import Any

import yaml


class UniqueKeyLoader(yaml.SafeLoader):
    """As the safe loader, but a key that is there twice is an error with its line."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                name = (key.tag, key.value)
                if name in seen:
                    line = key.start_mark.line + 1
                    raise yaml.constructor.ConstructorError(None, None, f"line {line} has the key `{key.value}` again")
                seen.add(name)
        content: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        return content
