"""The configuration in a file: TOML that is read over a preset and written as resolved.

Every key of the file is a field of `sabitrain.config`, under the same name. The resolved
configuration of a run is kept in its folder as ``config.toml``, which ``--config`` reads back.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import tyro

from sabiprep.errors import ConfigError, SabiprepError
from sabiprep.files import CONFIG_LIMIT, read_whole
from sabiprep.object_stores import Bucket
from sabiprep.places import is_remote, parent, place_of
from sabiprep.places import name as name_of
from sabitrain.config import PRESETS, TrainConfig
from sabitrain.partial.settings import Phase
from sabitrain.settings import Switch, names_where

CONFIG_FILE = "config.toml"


def resolve(preset: str | None, file: Path | None, required: Mapping[str, Any]) -> TrainConfig:
    """Returns the configuration of a preset and a TOML file.

    Args:
        preset: The preset; the file's own if None; if it names none, ``checkpoint`` for a run
            that starts from one, and ``nano`` otherwise.
        file: The TOML file, if any.
        required: Values of top-level fields, used where the file has none.

    Raises:
        ConfigError: If the file cannot be read, has an unknown key, or a value cannot be right.
    """
    written = {} if file is None else read_toml(file)
    place = None if file is None else str(file)
    for table in (written, *_tables(written.get("phase"))):
        _read_freeze(table, place)
    begins_with_one = written.get("init", required.get("init")) is not None
    name = preset or written.get("preset", "checkpoint" if begins_with_one else "nano")
    preset_values = check_preset(name, place)
    merged: dict[str, Any] = {**required, **written, "preset": name, "config": file}
    # A section of the file replaces single settings of the preset's section, not all of it.
    for key, values in preset_values.items():
        given = written.get(key, {} if isinstance(values, dict) else values)
        merged[key] = (
            {**values, **given} if isinstance(values, dict) and isinstance(given, dict) else given
        )
    return _build(TrainConfig, merged, place, "")


def _tables(value: Any) -> list[dict[str, Any]]:
    """Returns the tables in a list; none of anything else, which is refused later."""
    return [table for table in value if isinstance(table, dict)] if isinstance(value, list) else []


def _read_freeze(table: dict[str, Any], file: str | None) -> None:
    """Puts the patterns of a table ``[freeze]``, or a single one, where the list of them is.

    Raises:
        ConfigError: If the table has another key.
    """
    written = table.get("freeze")
    if isinstance(written, dict):
        for key in written:
            if key != "patterns":
                raise ConfigError(
                    f"unknown key 'freeze.{key}'",
                    file=file,
                    remedy="did you mean 'freeze.patterns'?",
                )
        written = table["freeze"] = written.get("patterns", [])
    if isinstance(written, str):
        table["freeze"] = [written]


def check_preset(name: Any, file: str | None) -> Mapping[str, Any]:
    """Returns the values of a preset.

    Args:
        name: The name of the preset, of any type.
        file: The file that names the preset, if any.

    Raises:
        ConfigError: If there is no preset of that name.
    """
    for preset, values in PRESETS.items():
        if preset == name:
            return values
    near = difflib.get_close_matches(str(name).lower(), PRESETS, n=1)
    meant = f"did you mean {near[0]}? " if near else ""
    raise ConfigError(
        f"no preset {name!r}", file=file, remedy=f"{meant}use one of {', '.join(PRESETS)}"
    )


def read_toml(file: Path) -> dict[str, Any]:
    """Reads and parses a TOML file.

    Raises:
        ConfigError: If it cannot be read or is no TOML.
        InputError: If it is in an object store that cannot be reached, or refuses access.
    """
    try:
        if is_remote(file):
            content = Bucket(parent(file)).read(name_of(file), CONFIG_LIMIT)
        else:
            content = read_whole(file, CONFIG_LIMIT)
        return tomllib.loads(content.decode("utf-8"))
    except SabiprepError:
        raise
    except OSError as error:
        raise ConfigError(
            f"cannot be read: {error.strerror}",
            file=str(file),
            remedy="name a TOML file",
            errno=error.errno,
        ) from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            f"is not TOML: {error}", file=str(file), remedy="mend it, or name another file"
        ) from error


def to_toml(config: TrainConfig) -> str:
    """Returns the configuration as the text of a TOML file, from which `resolve` gives it back.

    Settings of one session alone are left out. TOML has no null: a field that is None is left out.
    """
    values, unsaved = dataclasses.asdict(config), names_where(TrainConfig, "saved", False)
    sections = {name: value for name, value in values.items() if isinstance(value, dict)}
    lists = {
        name: value
        for name, value in values.items()
        if isinstance(value, tuple) and any(isinstance(entry, dict) for entry in value)
    }
    top = {
        name: value
        for name, value in values.items()
        if name not in sections and name not in lists and name not in unsaved
    }
    blocks = ["\n".join(_toml_lines(top))]
    blocks += [
        "\n".join([f"[{name}]", *_toml_lines(section)]) for name, section in sections.items()
    ]
    blocks += [
        "\n".join([f"[[{name}]]", *_toml_lines(entry)])
        for name, entries in lists.items()
        for entry in entries
    ]
    return "\n\n".join(blocks) + "\n"


def _toml_lines(values: Mapping[str, Any]) -> list[str]:
    """Returns ``key = value`` of each value that is not None."""
    lines = []
    for name, value in values.items():
        if isinstance(value, Path):
            value = place_of(value)
        if isinstance(value, float) and not math.isfinite(value):
            lines.append(f"{name} = {value}")
        elif value is not None:
            # JSON's strings, numbers, booleans and arrays are TOML's too, but for DEL, which TOML
            # wants escaped.
            lines.append(
                f"{name} = {json.dumps(value, ensure_ascii=False)}".replace("\x7f", "\\u007f")
            )
    return lines


_T = TypeVar("_T")


def _build(kind: type[_T], values: Mapping[str, Any], file: str | None, prefix: str) -> _T:
    """Makes a dataclass from a mapping, its sections included.

    Raises:
        ConfigError: If a key is unknown or a type is wrong.
    """
    hints = typing.get_type_hints(kind)
    arguments = {}
    for key, value in values.items():
        if key not in hints:
            near = difflib.get_close_matches(key, hints, n=1, cutoff=0.0)[0]
            raise ConfigError(
                f"unknown key '{prefix}{key}'", file=file, remedy=f"did you mean '{prefix}{near}'?"
            )
        arguments[key] = _value(hints[key], value, file, prefix + key)
    try:
        return kind(**arguments)
    except ConfigError as error:
        raise ConfigError(error.message, file=file, remedy=error.remedy) from error


def _value(hint: Any, value: Any, file: str | None, key: str) -> Any:
    """Returns a TOML value as the type of its field."""
    if value is tyro.MISSING or value is None:
        return value
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if isinstance(value, dict):
            return _build(hint, value, file, f"{key}.")
        raise ConfigError(
            f"'{key}' must be a table, not {value!r}", file=file, remedy=f"write it as [{key}]"
        )
    # A union of types is tried in its order.
    union = typing.get_origin(hint) in (types.UnionType, typing.Union)
    options = typing.get_args(hint) if union else (hint,)
    # TOML has words of its own for on and off.
    if hint == Switch and isinstance(value, bool):
        return "on" if value else "off"
    for option in options:
        if typing.get_origin(option) is Literal and value in typing.get_args(option):
            return value
        if option is Path and isinstance(value, str | Path):
            return Path(value)
        # TOML's `1` is a whole number, and `true` is none: bool is a subclass of int.
        if option is float and isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        if option in (int, bool, str) and type(value) is option:
            return value
        if typing.get_origin(option) is tuple and isinstance(value, list):
            inner = typing.get_args(option)[0]
            if dataclasses.is_dataclass(inner) and all(isinstance(entry, dict) for entry in value):
                assert isinstance(inner, type)
                return tuple(_build(inner, entry, file, f"{key}.") for entry in value)
            if all(type(entry) is inner for entry in value):
                return tuple(value)
        if key == "data" and isinstance(value, str):
            return (value,)
    raise ConfigError(f"'{key}' must be {_describe(options)}, not {value!r}", file=file)


def _describe(options: Sequence[Any]) -> str:
    """Returns the types of a field, in words for an error message."""
    words: dict[Any, str] = {int: "a whole number", float: "a number", bool: "true or false"}
    words |= {str: "a string", Path: "a path"}
    words |= {tuple[int, ...]: "a list of whole numbers", tuple[str, ...]: "a list of strings"}
    words |= {tuple[Phase, ...]: "tables, each written as [[phase]]"}
    named = []
    for option in options:
        if typing.get_origin(option) is Literal:
            choices = ", ".join(repr(choice) for choice in typing.get_args(option))
            named.append(choices if len(typing.get_args(option)) == 1 else f"one of {choices}")
        elif option is not types.NoneType:
            named.append(words[option])
    return " or ".join(named)
