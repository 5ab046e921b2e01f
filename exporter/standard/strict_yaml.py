"""YAML for rule files: a duplicate key is an error, and errors name their line.

PyYAML alone keeps the last of several equal keys, so one of a user's rules would
disappear without a word.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import yaml
from yaml.nodes import MappingNode
from yaml.parser import ParserError
from yaml.scanner import ScannerError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["InvalidYamlError", "read_yaml"]

# libyaml where it is available: the pure Python loader adds 40 ms to the start.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_SYNTAX: Final = (ParserError, ScannerError)


class InvalidYamlError(ValueError):
    """The text is not valid; the message begins with ` line 3: ` or `: `, so that it can follow the file's name."""


def read_yaml(text: bytes) -> object:
    """Return the content of a text with one YAML document; `None` if it is empty.

    Raises:
        InvalidYamlError: The text is not YAML, a key is repeated, or a value does not fit its tag.
    """
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        _refuse_twins(node)
        return loader.construct_document(node) if node else None
    except yaml.YAMLError as error:
        raise InvalidYamlError(_problem(error)) from None
    except (ValueError, LookupError, AttributeError) as error:  # 2024-13-45, !!int x
        message = f": not valid YAML: a value that cannot be read: {error}"
        raise InvalidYamlError(message) from None
    finally:
        loader.dispose()


def _refuse_twins(root: yaml.Node | None) -> None:
    """Refuse a mapping with a repeated key: YAML forbids it, and PyYAML keeps the last one.

    The check works on nodes, before merge keys and aliases are resolved: those may legitimately repeat a key.
    """
    for mapping in _mappings(root):
        lines: dict[tuple[str, object], int] = {}
        for key, _ in mapping.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            name = (key.tag, key.value)
            if name in lines:
                problem = f"the key {key.value!r} stands twice, first in line {lines[name]}"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            lines[name] = key.start_mark.line + 1


def _mappings(root: yaml.Node | None) -> Iterator[MappingNode]:
    """Yield every mapping once; an alias may lead to it again, even from inside itself."""
    seen: set[int] = set()
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if not isinstance(node, yaml.CollectionNode) or id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, MappingNode):
            yield node
        waiting += [part for item in node.value for part in (item if isinstance(item, tuple) else (item,))]


def _problem(error: yaml.YAMLError) -> str:
    if not isinstance(error, yaml.MarkedYAMLError):
        return f": not valid YAML: {error}"
    place = f" line {error.problem_mark.line + 1}" if error.problem_mark else ""
    words = ": ".join(filter(None, (error.context, error.problem)))
    return f"{place}: not valid YAML: {words}" + (
        "; check indent and quotes there" if isinstance(error, _SYNTAX) else ""
    )
