"""YAML as configs use it: plain values, each with one meaning, and its line. Knows no key of ours.

Refused: more than 64 KiB or 32 levels, anchors and aliases (a few of them make a bomb), tags, keys twice, and what
YAML 1.1 reads otherwise than people mean it: `no` as false, `1:30` as 90, `0777` as 511, 2026-01-01 as a date.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

import yaml

from softmax_dask_pipelines.errors import ConfigError

MAX_BYTES = 1 << 16
"""Far more than a config of every key with comments; PyYAML's parser, written in Python, takes seconds for more."""
MAX_DEPTH = 32

Begin = Callable[[int | None], str]
"""From a line, or None for the text as a whole, to what an error begins with."""
Keys = tuple[str, ...]
Fault = tuple[int | None, str]
"""Line, and what is wrong there."""

_STANDARD = "tag:yaml.org,2002:"
_QUOTES = "Write it in quotes."
_QUOTES_OR_DECIMAL = "Write it in quotes, or as a decimal number."
_SURPRISES = (
    ("bool", re.compile("yes|no|on|off", re.IGNORECASE), "true or false", _QUOTES),
    ("int", re.compile(".*:.*"), "a number of base 60", _QUOTES_OR_DECIMAL),
    ("float", re.compile(".*:.*"), "a number of base 60", _QUOTES_OR_DECIMAL),
    ("int", re.compile("[-+]?0[0-9_]+"), "an octal number", _QUOTES_OR_DECIMAL),
    ("timestamp", re.compile(".*", re.DOTALL), "a date", _QUOTES),
    ("merge", re.compile(".*"), "a merge of sections", _QUOTES),
    ("value", re.compile(".*"), "a default value", _QUOTES),
)
"""Type that YAML 1.1 gives a plain scalar, the texts that people mean otherwise, what YAML takes them for, remedy."""


def parse_yaml(text: str, begin: Begin) -> tuple[Any, yaml.Node | None]:
    """The values of one YAML document, and the nodes that know their lines.

    Raises
    ------
    ConfigError
        It is no YAML, or YAML that is refused. The message begins with `begin(line)`.
    """
    try:
        _refuse(_structure_faults(text), begin)
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        _refuse(_key_faults(tree), begin)
        _refuse(_scalar_faults(tree, ()), begin)
        return (None if tree is None else _values(tree)), tree
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else None
        raise ConfigError(f"{begin(line)}: is no YAML: {getattr(error, 'problem', None) or error}.") from error
    except ValueError as error:  # digits that Python does not take for a number
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{begin(None)}: holds a number that cannot be read: {error}. {_QUOTES}") from error


def parse_value(text: str, begin: Begin) -> Any:
    """The value of a flag: as in a file, but `5:10` and 2026-01-01 alone are text; the shell has taken quotes away."""
    tag: str = yaml.SafeLoader("").resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
    tag = tag.removeprefix(_STANDARD)
    if tag == "timestamp" or (tag in ("int", "float") and ":" in text):
        return text
    return parse_yaml(text, begin)[0]


def line_of(tree: yaml.Node | None, keys: tuple[str | int, ...]) -> int:
    """Line of the innermost of these nested keys that the document has."""
    node, line = tree, 1
    for step in keys:
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        found = next((pair for pair in pairs if pair[0].value == step), None)
        if found is None:
            break
        line, node = found[0].start_mark.line + 1, found[1]
    return line


def _refuse(faults: Iterator[Fault], begin: Begin) -> None:
    for line, fault in faults:
        raise ConfigError(f"{begin(line)}: {fault}")


def _values(tree: yaml.Node) -> Any:
    loader = yaml.SafeLoader("")
    try:
        return loader.construct_document(tree)
    finally:
        loader.dispose()


def _structure_faults(text: str) -> Iterator[Fault]:
    """Of the text's events, one by one: nothing is built of what will be refused."""
    if len(text) > MAX_BYTES:
        yield None, f"has more than {MAX_BYTES:,} characters; expected a config of a few lines."
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        assert event.start_mark is not None, "an event without a line"
        line = event.start_mark.line + 1
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            yield None, f"is no YAML of a config: line {line} lies deeper than {MAX_DEPTH} levels."
        fault = _event_fault(event)
        if fault is not None:
            yield line, fault


def _event_fault(event: yaml.Event) -> str | None:
    anchor, tag = getattr(event, "anchor", None), getattr(event, "tag", None)
    if anchor is not None:
        kind = "*{}: is an alias" if isinstance(event, yaml.AliasEvent) else "&{}: is the anchor of an alias"
        return f"{kind.format(anchor)}; expected no aliases. Write it out."
    if tag is not None:
        return f"{tag.replace(_STANDARD, '!!')}: is a tag; expected plain values and no tags. Take it out."
    return None


def _key_faults(node: yaml.Node | None) -> Iterator[Fault]:
    if node is None or isinstance(node, yaml.ScalarNode):
        return
    seen: set[str] = set()
    for key, value in _children(node):
        if key is not None:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                yield line, "has a list or section as a key; expected text."
            elif key.value in seen:
                yield line, f"{key.value}: stands twice; expected each key once. Take one out."
            seen.add(str(key.value))
        yield from _key_faults(value)


def _scalar_faults(node: yaml.Node | None, keys: Keys) -> Iterator[Fault]:
    """Values, and keys, that YAML 1.1 reads otherwise than people mean them."""
    if isinstance(node, yaml.ScalarNode):
        yield from _surprise(node, keys)
    elif node is not None:
        for key, value in _children(node):
            inner = keys if key is None else (*keys, str(key.value))
            if key is not None:
                yield from _surprise(key, keys)
            yield from _scalar_faults(value, inner)


def _surprise(node: yaml.ScalarNode, keys: Keys) -> Iterator[Fault]:
    if node.style is not None:  # quoted: text
        return
    kind = node.tag.removeprefix(_STANDARD)
    for surprising, texts, meaning, remedy in _SURPRISES:
        if kind == surprising and texts.fullmatch(node.value):
            key = f"{'.'.join(keys)}: " if keys else ""
            fault = f"{key}is {node.value}, which YAML reads as {meaning}; expected a value with one meaning. {remedy}"
            yield node.start_mark.line + 1, fault


def _children(node: yaml.Node) -> Iterator[tuple[Any, yaml.Node]]:
    """Key and value of each entry; the key of a list's is None."""
    for child in node.value:
        yield child if isinstance(node, yaml.MappingNode) else (None, child)
