"""`millrace schema check`: what a new schema would break, by a registry's modes and in the pipelines that read it. Works offline."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from schemas.avro import AvroSchema, load_schema
from schemas.compatibility import Finding, Mode, judge
from schemas.errors import MillraceError, SchemaError
from schemas.features import Json
from schemas.registry import FILE_NAME
from streams.definition.bound import Bound
from streams.definition.load import load_bound
from streams.schema.impact import impact, words_of

_PIPELINE = re.compile(r"^\w+\s*=\s*(\w+\.)?Pipeline\(", re.MULTILINE)
_PASSED_OVER = {".git", ".venv", "venv", "node_modules", "__pycache__", "site-packages"}


def check_schema(
    file: Path, folder: Path, subject: str | None, mode: Mode, pipelines: Sequence[Path] = (), which: str | None = None
) -> dict[str, Json]:
    """Hold a new schema against a subject's versions, and against the pipelines that read the subject.

    Args:
        file: the new schema.
        folder: where the versions (``<id>-<subject>.avsc``) and the pipeline files are looked for, in folders below it too.
        subject: whose; None = the one the file is named for, or whose schema describes the same record.
        mode: the subject's.
        pipelines: files of pipelines; none = all that are found.
        which: the pipeline's name, where such a file defines several.

    Raises:
        SchemaError: a schema is broken, or it can't be told which subject is meant.
        DefinitionError: a pipeline file is broken.
    """
    new = load_schema(file)
    new.fields  # noqa: B018 - refuses what is no record
    if not folder.is_dir():
        raise SchemaError(f"no folder {folder}; wanted the one with schemas and pipelines")
    known = _subjects(folder, file)
    bounds = [load_bound(path, which) for path in (pipelines or pipeline_files(folder))]
    subject = subject or _named(file, new, known, bounds)
    versions = [(number, load_schema(path)) for number, path in sorted(known.get(subject, {}).items())]
    readers = [bound for bound in bounds if bound.input.subject == subject]
    if not versions and not readers:
        raise SchemaError(f"nothing under {folder} knows the subject {subject!r}; there are {', '.join(sorted(known)) or 'none'}")
    findings = judge(new, versions, mode)
    impacts = [impact(bound, new) for bound in readers]
    broken = any(each["breaks"] for each in impacts)
    return {
        "schema": str(file),
        "subject": subject,
        "mode": mode,
        "versions": [number for number, _ in versions],
        "compatible": not findings,
        "findings": [_told(finding) for finding in findings],
        "pipelines": list(impacts),
        "breaks_pipelines": broken,
    }


def refuse(facts: Mapping[str, Any]) -> None:
    """End with the exit code of a schema that must not be used.

    Raises:
        SchemaError: it is incompatible, or breaks a pipeline.
    """
    troubles = []
    if not facts["compatible"]:
        troubles.append(f"is not {facts['mode']} compatible")
    broken = [each["pipeline"] for each in facts["pipelines"] if each["breaks"]]
    if broken:
        troubles.append(f"breaks {', '.join(broken)}")
    if troubles:
        raise SchemaError(f"{facts['schema']} {' and '.join(troubles)}")


def check_words(facts: Mapping[str, Any]) -> str:
    """A line for each finding."""
    against = f"version {', '.join(map(str, facts['versions']))}" if facts["versions"] else "no version"
    state = "compatible" if facts["compatible"] else "NOT compatible"
    lines = [f"{facts['schema']} as {facts['subject']}: {facts['mode']} {state} (known: {against})"]
    for finding in facts["findings"]:
        lines.append(f"  {finding['words']}")
        lines += [f"    {each['field'] or 'the record'}: {each['words']}" for each in finding["breaks"]]
    for each in facts["pipelines"]:
        if not each["breaks"] and not each["defaults"]:
            lines.append(f"pipeline {each['pipeline']} reads it as before")
            continue
        lines.append(f"pipeline {each['pipeline']}")
        for found in each["breaks"]:
            fate = "records with such values become dead letters" if found["some"] else "every record becomes a dead letter"
            lines.append(f"  {found['field'] or 'the record'}: {found['change']} breaks {words_of(found, each)}")
            lines.append(f"    it {found['words']}; {fate}")
        for found in each["defaults"]:
            words = f"is not written, every event would have its default {found['default']!r}"
            lines.append(f"  {found['field']}: {words}: {words_of(found, each)}")
    if not facts["pipelines"]:
        lines.append("no pipeline here reads it")
    return "\n".join(lines)


def _told(finding: Finding) -> Json:
    if finding.direction == "backward":
        words = f"the new schema can't read what version {finding.version} wrote:"
    else:
        words = f"readers with version {finding.version} can't read what the new schema writes:"
    return {
        "version": finding.version,
        "direction": finding.direction,
        "words": words,
        "breaks": [{"field": each.path, "change": each.change, "words": each.words, "some": each.some} for each in finding.breaks],
    }


def _files(folder: Path, suffix: str) -> Iterator[Path]:
    for path in sorted(folder.rglob(f"*{suffix}")):
        if not _PASSED_OVER.intersection(path.relative_to(folder).parts):
            yield path


def _subjects(folder: Path, new: Path) -> dict[str, dict[int, Path]]:
    """By subject and id: the files of its versions; the new schema is none of them."""
    found: dict[str, dict[int, Path]] = {}
    for path in _files(folder, ".avsc"):
        named = FILE_NAME.fullmatch(path.name)
        if named is None or path.resolve() == new.resolve():
            continue
        versions = found.setdefault(named[2], {})
        if int(named[1]) in versions:
            raise SchemaError(f"{path} and {versions[int(named[1])]} have one subject and one id; wanted one of them, or a narrower --dir")
        versions[int(named[1])] = path
    return found


def pipeline_files(folder: Path) -> list[Path]:
    """Files in a folder, and those below it, that define a pipeline."""
    return [path for path in _files(folder, ".py") if _PIPELINE.search(path.read_text(encoding="utf-8", errors="replace"))]


def _named(file: Path, new: AvroSchema, known: Mapping[str, Mapping[int, Path]], bounds: Sequence[Bound]) -> str:
    """The subject a file is meant for, if that can be told."""
    named = FILE_NAME.fullmatch(file.name)
    if named is not None:
        return named[2]
    alike = {bound.input.subject for bound in bounds if str(bound.schema) == str(new)}
    for subject, versions in known.items():
        try:
            if str(load_schema(versions[max(versions)])) == str(new):
                alike.add(subject)
        except MillraceError:
            continue  # a broken file of another subject is nobody's business here
    if len(alike) != 1:
        found = f"{', '.join(sorted(alike))} all do" if alike else f"there are {', '.join(sorted(known)) or 'none'}"
        raise SchemaError(f"no one subject has a record called {new}: {found}; say which with --subject")
    return alike.pop()
