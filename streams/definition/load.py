"""Load a pipeline file: run it as the module it is, and say in one line what is wrong with it."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, TracebackType

from schemas.errors import DefinitionError, MillraceError
from streams.definition.bound import Bound, bind
from streams.definition.pipeline import Pipeline
from streams.suggestion import did_you_mean

PACKAGES = ("millrace", "streams", "transforms", "inference", "schemas")


def load_pipeline(path: str | Path, name: str | None = None) -> Pipeline:
    """The pipeline that a Python file defines.

    The file's folder is appended to `sys.path`, so that it may import modules beside it; never put first, where they could hide others.

    Args:
        path: the file.
        name: which of its pipelines; needed if there are several.

    Raises:
        DefinitionError: the file is missing or broken, with file and line; or it defines no such pipeline, or two with one name.
    """
    return _chosen(_defined(_run(_file_at(path)), path), name, path)


def load_bound(path: str | Path, name: str | None = None) -> Bound:
    """The pipeline that a file defines, held against its schema; relative paths start at the file's folder.

    Raises:
        DefinitionError: as `load_pipeline`, or the pipeline contradicts its schema.
        SchemaError: the schema file is missing or broken.
    """
    return bind(load_pipeline(path, name), Path(path).resolve().parent)


def load_bounds(path: str | Path) -> tuple[Bound, ...]:
    """Every pipeline that a file defines, held against its schema.

    Raises:
        DefinitionError, SchemaError: as `load_bound`.
    """
    file = _file_at(path)
    return tuple(bind(pipeline, file.parent) for pipeline in _defined(_run(file), path).values())


def _file_at(path: str | Path) -> Path:
    file = Path(path).resolve()
    if file.suffix != ".py" or not file.is_file():
        raise DefinitionError(f"no pipeline file at {path}; wanted a .py file")
    folder = str(file.parent)
    if folder not in sys.path:
        sys.path.append(folder)
    return file


def _run(file: Path) -> ModuleType:
    module_name = f"millrace_pipeline_{file.stem}"
    spec = importlib.util.spec_from_file_location(module_name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # As an import does: dataclasses and pickles look their module up.
    sys.modules[module_name] = module
    with _FaultsOf(file):
        spec.loader.exec_module(module)
    return module


@dataclass(frozen=True, slots=True)
class _FaultsOf:
    """The file is the user's: whatever it raises is told with its line."""

    file: Path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if isinstance(error, Exception):
            raise DefinitionError(_told(error, self.file)) from error


def _told(error: Exception, file: Path) -> str:
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}: {error.msg}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).is_relative_to(file.parent)]
    where = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else str(file)
    told = str(error) if isinstance(error, MillraceError) else f"{type(error).__name__}: {error}"
    return f"{where}: {told}{_hidden(error, file.parent)}"


def _hidden(error: Exception, folder: Path) -> str:
    """A module of the user's that can't be imported because a package of ours has its name."""
    if not isinstance(error, ImportError) or not error.name:
        return ""
    top = error.name.partition(".")[0]
    for beside in (folder / top, folder / f"{top}.py"):
        if top in PACKAGES and beside.exists():
            return f"; {beside} has the name of Millrace's package {top!r} and can't be imported: rename it"
    return ""


def _defined(module: ModuleType, path: str | Path) -> dict[str, Pipeline]:
    """By name."""
    found: dict[str, Pipeline] = {}
    for value in vars(module).values():
        if isinstance(value, Pipeline) and found.setdefault(value.name, value) is not value:
            raise DefinitionError(f"{path} defines two pipelines named {value.name!r}")
    if not found:
        raise DefinitionError(f"{path} defines no pipeline; wanted a line like: pipeline = Pipeline(...)")
    return found


def _chosen(found: Mapping[str, Pipeline], name: str | None, path: str | Path) -> Pipeline:
    if name is not None:
        if name not in found:
            raise DefinitionError(f"{path} defines no pipeline {name!r}; {did_you_mean(name, found)}")
        return found[name]
    if len(found) > 1:
        raise DefinitionError(f"{path} defines several pipelines ({', '.join(sorted(found))}); say which with --pipeline")
    return next(iter(found.values()))
