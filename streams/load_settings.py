"""Gather the settings from local services, a file and the environment, and say of each bad one where it came from."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from schemas.errors import SettingsError
from schemas.features import Json
from streams.settings import Settings
from streams.suggestion import did_you_mean

PREFIX = "MILLRACE_"
FILE_VARIABLE = "MILLRACE_SETTINGS"
WELL_KNOWN = {
    "KAFKA_BOOTSTRAP_SERVERS": ("kafka", "bootstrap_servers"),
    "REDIS_URL": ("redis", "url"),
    "SCHEMA_REGISTRY_URL": ("registry", "url"),
    "LOG_LEVEL": ("log", "level"),
}

Steps = tuple[str, ...]


def load_settings(
    file: str | Path | None, environment: Mapping[str, str], local: Mapping[str, Mapping[str, Any]] | None = None
) -> Settings:
    """The settings that hold here.

    Args:
        file: TOML or YAML; None = the one that MILLRACE_SETTINGS names, if any.
        environment: usually `os.environ`.
        local: by section, what services started on this machine say; everything else goes over it.

    Raises:
        SettingsError: one line for each bad setting: its name, what is wrong, where it was said. No value of a secret is in it.
    """
    found = _Found()
    found.add_tree(local or {}, "the local services")
    chosen = file or environment.get(FILE_VARIABLE)
    if chosen:
        found.add_tree(_read(Path(chosen)), str(chosen))
    for variable, path in WELL_KNOWN.items():
        found.add_variable(environment, variable, path)
    for name in sorted(environment):
        variable = name.removesuffix("_FILE")
        if name.startswith(PREFIX) and "__" in name:
            found.add_variable(environment, variable, _path_of(variable))
        _check_underscores(name)
    try:
        return Settings.model_validate(found.tree)
    except ValidationError as error:
        raise SettingsError("\n".join(sorted({_line(dict(each), found) for each in error.errors(include_url=False)}))) from None


def _check_underscores(name: str) -> None:
    """One underscore for two would be passed over in silence."""
    for section in Settings.model_fields:
        start = f"{PREFIX}{section.upper()}_"
        if name.startswith(start) and "__" not in name:
            raise SettingsError(
                f"environment {name}: wanted two underscores between section and setting, {start}_{name.removeprefix(start)}"
            )


def settings_schema() -> dict[str, Json]:
    """JSON Schema of a settings file, for editors."""
    return Settings.model_json_schema()


def settings_words(facts: Mapping[str, Any]) -> str:
    """A line for each setting."""
    return "\n".join(f"{section}.{name} = {value!r}" for section, values in facts.items() for name, value in values.items())


class _Found:
    """Values found so far, as a tree, and who said each."""

    def __init__(self) -> None:
        self.tree: dict[str, Any] = {}
        self.said_by: dict[Steps, str] = {}

    def add_tree(self, tree: Mapping[str, Any], source: str, above: Steps = ()) -> None:
        for key, value in tree.items():
            if isinstance(value, Mapping):
                self.said_by.setdefault((*above, str(key)), source)
                self.add_tree(value, source, (*above, str(key)))
            else:
                self.add((*above, str(key)), value, source)

    def add_variable(self, environment: Mapping[str, str], variable: str, path: Steps) -> None:
        """The variable's value, or what stands in the file that ``<variable>_FILE`` names."""
        direct, by_file = environment.get(variable), environment.get(f"{variable}_FILE")
        if direct and by_file:
            raise SettingsError(f"{'.'.join(path)}: both {variable} and {variable}_FILE are set; wanted one of them")
        if by_file:
            try:
                direct = Path(by_file).read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                # What is no path may be the secret itself, put into the wrong variable.
                named = by_file if by_file.startswith("/") else "what"
                why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
                raise SettingsError(f"{'.'.join(path)}: {variable}_FILE names {named}, which can't be read: {why}") from error
        if direct:
            self.add(path, direct, f"environment {variable}{'_FILE' if by_file else ''}")

    def add(self, path: Steps, value: Any, source: str) -> None:
        # The place of schemas is one thing with two names: what is said later, and weighs more, replaces both.
        if path[0] == "registry" and path[1:] in (("url",), ("folder",)):
            other = ("registry", "folder" if path[1] == "url" else "url")
            if _layer(self.said_by.get(other, source)) != _layer(source):
                del self.tree["registry"][other[1]], self.said_by[other]
        branch = self.tree
        for step in path[:-1]:
            inner = branch.setdefault(step, {})
            if not isinstance(inner, dict):
                raise SettingsError(
                    f"{'.'.join(path)}: {step} is one value in {self.said_by.get(path[:1], 'the settings')}, and a section in {source}"
                )
            branch = inner
        branch[path[-1]] = value
        self.said_by[path] = source

    def source_of(self, path: Steps) -> str:
        """Who said it; for a whole section, who said anything of it."""
        for end in range(len(path), 0, -1):
            if path[:end] in self.said_by:
                return self.said_by[path[:end]]
        said = [source for known, source in self.said_by.items() if known[: len(path)] == path]
        return said[-1] if said else "the settings"


def _layer(source: str) -> str:
    """Variables of ours speak with one voice."""
    return PREFIX if source.startswith(f"environment {PREFIX}") else source


def _path_of(variable: str) -> Steps:
    """``MILLRACE_KAFKA__CLIENT__SSL_CA_LOCATION`` -> kafka, client, ssl.ca.location."""
    path = tuple(part.lower() for part in variable.removeprefix(PREFIX).split("__"))
    if len(path) == 3 and path[1] == "client":
        return (*path[:2], path[2].replace("_", "."))
    return path


def _read(file: Path) -> Mapping[str, Any]:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"settings file {file} can't be read: {error}") from error
    try:
        if file.suffix == ".toml":
            return tomllib.loads(text)
        if file.suffix in (".yaml", ".yml"):
            tree = yaml.safe_load(text)
        else:
            raise SettingsError(f"settings file {file}: wanted a name ending in .toml, .yaml or .yml")
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"settings file {file} is no TOML: {error}") from error
    except yaml.YAMLError as error:
        raise SettingsError(f"settings file {file} is no YAML: {_yaml_words(error)}") from None  # its own words quote the line
    if tree is None:
        return {}
    if not isinstance(tree, Mapping):
        raise SettingsError(f"settings file {file}: wanted sections ({', '.join(Settings.model_fields)}), found {type(tree).__name__}")
    return tree


def _yaml_words(error: yaml.YAMLError) -> str:
    """What is wrong and where, without the text that stands there."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return "it has characters that no YAML has"
    problem = re.sub(r"\s*['\"](?!<[a-z ]+>').*", "", error.problem or "", flags=re.DOTALL)  # what it quotes stands in the file
    return f"line {error.problem_mark.line + 1}, column {error.problem_mark.column + 1}: {problem}"


def _line(error: dict[str, Any], found: _Found) -> str:
    path = tuple(str(step) for step in error["loc"])
    if len(path) > 3 or (len(path) == 3 and path[1] != "client"):
        path = path[:2]
    if path[1:2] == ("client",):
        path = path[:3]
    where = found.source_of(path)
    if error["type"] == "extra_forbidden":
        return f"{'.'.join(path)}: no such setting; {did_you_mean(path[-1], _names_beside(path))} (in {where})"
    message = re.sub(r"^(Value error, |Input )", "", str(error["msg"]))
    return f"{'.'.join(path)}: {message}{_shown(path, found)} (in {where})"


def _shown(path: Steps, found: _Found) -> str:
    """What was found, unless it may be a secret."""
    value: Any = found.tree
    for step in path:
        value = value.get(step) if isinstance(value, dict) else None
    if value is None or isinstance(value, dict) or path[-1] == "url" or path[1:2] == ("client",):
        return ""
    return f", found {value!r}"


def _names_beside(path: Steps) -> list[str]:
    fields = Settings.model_fields
    if len(path) == 1:
        return list(fields)
    section = fields[path[0]].annotation
    assert isinstance(section, type)
    assert issubclass(section, BaseModel)
    return list(section.model_fields)
