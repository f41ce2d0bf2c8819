"""YAML and TOML as plain values, and back to YAML.

YAML is read by the rules of its version 1.2 where PyYAML has those of 1.1: ``1e-3`` is a number, and ``no`` a word, not
False. A key that is given twice is an error.
"""

import copy
import re
import tomllib
from pathlib import Path
from typing import Any

import yaml

from probcl.cli.errors import ConfigError
from probcl.errors import DataFileError

_FLOAT = re.compile(r"[-+]?(\.\d+|\d+(\.\d*)?)([eE][-+]?\d+)?$|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$")
_BOOL = re.compile(r"(true|True|TRUE|false|False|FALSE)$")
_INT = re.compile(r"[-+]?\d+$|0o[0-7]+$|0x[0-9a-fA-F]+$")


class _Loader(yaml.SafeLoader):
    """Plain values only."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for index, key in enumerate(keys):
            if any(key.value == other.value for other in keys[:index]):
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} is given twice", key.start_mark)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Writes what `_Loader` reads."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_list(dumper: _Dumper, data: list[Any]) -> yaml.Node:
    scalars = all(not isinstance(item, list | dict) for item in data)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=scalars)


_Dumper.add_representer(list, _represent_list)


def _use_rules_of_1_2(cls: Any) -> None:
    resolvers = copy.deepcopy(yaml.SafeLoader.yaml_implicit_resolvers)
    replaced = {f"tag:yaml.org,2002:{kind}" for kind in ("bool", "int", "float", "timestamp")}
    cls.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in rules if tag not in replaced] for first, rules in resolvers.items()
    }
    for kind, pattern, first in (
        ("bool", _BOOL, "tTfF"),
        ("int", _INT, "-+0123456789"),
        ("float", _FLOAT, "-+0123456789."),
    ):
        cls.add_implicit_resolver(f"tag:yaml.org,2002:{kind}", pattern, list(first))


_use_rules_of_1_2(_Loader)
_use_rules_of_1_2(_Dumper)


def _construct_int(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = node.value
    return int(text, 0 if text[:2] in ("0o", "0x") else 10)


_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)


def parse(text: str, suffix: str) -> Any:
    """Return what a YAML (``.yaml``, ``.yml``) or TOML (``.toml``) document holds.

    Raises
    ------
    ConfigError
        If it is not one, or of another suffix.
    """
    if suffix not in (".yaml", ".yml", ".toml"):
        raise ConfigError([f"a config must end in .yaml, .yml or .toml, got {suffix or 'no suffix'}"])
    kind = "TOML" if suffix == ".toml" else "YAML"
    try:
        return tomllib.loads(text) if kind == "TOML" else yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ConfigError([f"not {kind}: {where}{_line(error.problem or error.context or 'malformed')}"]) from error
    except (yaml.YAMLError, tomllib.TOMLDecodeError, ValueError, TypeError) as error:
        raise ConfigError([f"not {kind}: {_line(str(error))}"]) from error
    except RecursionError as error:
        raise ConfigError([f"not a config: the {kind} is nested too deeply"]) from error


def read(path: Path) -> Any:
    """Return what the YAML or TOML file at `path` holds.

    Raises
    ------
    DataFileError
        If it cannot be read.
    ConfigError
        If it is not what its suffix says.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path}: not text in UTF-8: {error.reason} at byte {error.start}"]) from error
    except OSError as error:
        raise DataFileError(f"{path}: {error.strerror or error}") from error
    try:
        return parse(text, path.suffix.lower())
    except ConfigError as error:
        raise ConfigError([f"{path}: {problem}" for problem in error.problems]) from error


def to_yaml(plain: Any) -> str:
    """Write plain values as YAML that `parse` reads."""
    return yaml.dump(plain, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def _line(text: str) -> str:
    return " ".join(text.split())
