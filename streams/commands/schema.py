"""The verbs of `millrace schema`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from streams.commands.common import AsJson, SettingsFile, bound_of, say, settings_of

if TYPE_CHECKING:
    from schemas.constraints import Constraints
    from streams.schema.diff import Comparison
    from streams.schema.source import Reading

app = typer.Typer(help="Schemas and data: what a new schema would break, and what data is like.", no_args_is_help=True)


@app.command("check")
def check(
    file: Annotated[Path, typer.Argument(metavar="NEW.avsc", help="The new schema.", show_default=False)],
    subject: Annotated[
        str | None, typer.Option(metavar="NAME", help="Whose; by default the one that describes the same record.", show_default=False)
    ] = None,
    folder: Annotated[
        Path, typer.Option("--dir", metavar="FOLDER", help="Where versions (<id>-<subject>.avsc) and pipelines are looked for.")
    ] = Path(),
    mode: Annotated[str, typer.Option(metavar="MODE", help="The subject's compatibility mode.")] = "BACKWARD",
    pipeline: Annotated[
        list[Path] | None, typer.Option("--pipeline-file", metavar="FILE", help="These pipelines only.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what a new schema would break: by mode, and which rules, features, models and outputs here; ends with 11 if anything. Offline."""
    from schemas.compatibility import Mode
    from streams.schema.check import check_schema, check_words, refuse

    facts = check_schema(file, folder, subject, cast(Mode, mode.upper()), tuple(pipeline or ()))
    say(facts, as_json, check_words)
    refuse(facts)


@app.command("register")
def register(
    file: Annotated[Path, typer.Argument(metavar="FILE.avsc", help="The schema.", show_default=False)],
    subject: Annotated[str, typer.Option(metavar="NAME", help="Such as payments-value.", show_default=False)],
    folder: Annotated[
        Path | None, typer.Option(help="A folder of files in place of the registry that the settings name.", show_default=False)
    ] = None,
    settings: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Register a schema, and print its id; the id it has already, if the subject has it. Workers never do this."""
    from streams.schema.register import register_schema, register_words

    say(register_schema(file, subject, folder, settings_of(settings)), as_json, register_words)


Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE...", help="Files (JSON lines, Avro, Parquet, CSV), a folder or pattern, or kafka:TOPIC.", show_default=False
    ),
]
SchemaFile = Annotated[
    Path | None,
    typer.Option("--schema", metavar="FILE.avsc", help="What the records are; drafted from them by default.", show_default=False),
]
ConstraintsFile = Annotated[
    Path | None,
    typer.Option(
        "--constraints", metavar="FILE.yaml", help="What the records have to be; found beside the schema by default.", show_default=False
    ),
]
Compared = Annotated[str, typer.Option("--as", metavar="WORD", help="drift or skew: whose thresholds hold.")]
Limit = Annotated[int | None, typer.Option(min=1, metavar="N", help="Look at the first N rows of each file only.", show_default=False)]
Zone = Annotated[str | None, typer.Option("--time-zone", metavar="ZONE", help="Of times that name none, such as UTC.", show_default=False)]
Html = Annotated[Path | None, typer.Option("--html", metavar="FILE", help="A page with plots; not there yet.", show_default=False)]
Framed = Annotated[
    str | None, typer.Option("--framing", metavar="WORD", help="Of a topic: confluent, bare or json; told from its records by default.")
]


@app.command("infer")
def infer(
    source: Sources,
    name: Annotated[str, typer.Option(metavar="NAME", help="Of the record, with its namespace.")] = "Event",
    out: Annotated[Path | None, typer.Option(metavar="FILE.avsc", help="Where the draft goes; not there yet.", show_default=False)] = None,
    constraints: Annotated[
        Path | None,
        typer.Option("--constraints-out", metavar="FILE", help="Where drafted constraints go; not there yet.", show_default=False),
    ] = None,
    limit: Limit = None,
    zone: Zone = None,
    framing: Framed = None,
    settings: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Draft a schema and constraints from data: types, what may be missing, ranges and domains; and say what does not fit the draft."""
    _check_libraries()
    from streams.schema.infer import infer_schema, infer_words

    say(infer_schema(source, _reading(None, zone, limit, framing, settings, name), out, constraints), as_json, infer_words)


@app.command("stats")
def stats(
    source: Sources,
    schema: SchemaFile = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="Where the statistics go, for `diff` and `validate`.", show_default=False)
    ] = None,
    html: Html = None,
    limit: Limit = None,
    zone: Zone = None,
    framing: Framed = None,
    settings: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Statistics of each field: counts, quantiles, top values, histograms; in memory that does not grow with the data."""
    _check_libraries()
    from streams.schema.source import open_source
    from streams.schema.stats import look, save, stats_facts, stats_words

    opened = open_source(source, _reading(schema, zone, limit, framing, settings))
    seen = look(opened)
    if out is not None:
        save(seen.statistics, out)
    facts = stats_facts(opened, seen)
    if html is not None:
        from streams.schema.page import stats_page

        stats_page(facts, html)
    say(facts, as_json, stats_words)


@app.command("validate")
def validate(
    source: Sources,
    schema: SchemaFile = None,
    pipeline: Annotated[
        Path | None, typer.Option("--pipeline-file", metavar="FILE", help="All that a pipeline asks of its events.", show_default=False)
    ] = None,
    labels: Annotated[bool, typer.Option("--labels", help="Of the pipeline's labels, not its events.")] = False,
    constraints: ConstraintsFile = None,
    environment: Annotated[str, typer.Option(metavar="NAME", help="Of the constraints.")] = "SERVING",
    baseline: Annotated[
        str | None, typer.Option("--baseline", metavar="SOURCE", help="Data, or its statistics, to compare with.", show_default=False)
    ] = None,
    comparison: Compared = "drift",
    html: Html = None,
    suggest: Annotated[
        Path | None, typer.Option("--patch", metavar="FILE", help="Where the suggested change goes; not there yet.", show_default=False)
    ] = None,
    limit: Limit = None,
    zone: Zone = None,
    framing: Framed = None,
    settings: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Hold data against its schema and constraints, as a worker would; ends with 11 if anything is found."""
    _check_libraries()
    from schemas.constraints_check import field_types
    from schemas.errors import SettingsError
    from streams.definition.inlet import Inlet
    from streams.schema.diff import statistics_of
    from streams.schema.source import open_source
    from streams.schema.stats import write_new
    from streams.schema.validate import Against, check_environment, refuse, validate_words
    from streams.schema.validate import validate as validated

    check_environment(source, environment)
    how = _reading(schema, zone, limit, framing, settings)
    if pipeline is not None:
        if schema is not None or constraints is not None or environment != "SERVING":
            raise SettingsError("--pipeline-file says which schema, constraints and environment; wanted it, or --schema")
        inlet = Inlet.of(bound_of(pipeline, None), labels)
        how = replace(how, schema=inlet.schema, folder=inlet.bound.schema_folder, framing=how.framing or inlet.topic.framing)
        against = Against.of_pipeline(inlet)
        opened = open_source(source, how)
    elif labels:
        raise SettingsError("--labels are a pipeline's; wanted --pipeline-file as well")
    else:
        opened = open_source(source, how)
        against = Against.of(field_types(opened.schema), _constraints(schema, constraints, environment, source[0]), opened.name)
    before = None if baseline is None else statistics_of([baseline], replace(how, schema=opened.schema))
    facts = validated(opened, against, before, _comparison(comparison))
    if html is not None:
        from streams.schema.page import validation_page

        validation_page(facts, facts["statistics"], html)
    if suggest is not None:
        write_new(suggest, facts["patch"])
    say(facts, as_json, validate_words)
    refuse(facts)


@app.command("diff")
def diff(
    source: Annotated[
        list[str],
        typer.Argument(metavar="FIRST [SECOND]", help="Files, kafka:TOPIC, or statistics written by stats --out.", show_default=False),
    ],
    days: Annotated[bool, typer.Option("--days", help="Compare each day of one source with the day before.")] = False,
    time: Annotated[str | None, typer.Option("--time", metavar="FIELD", help="Which time says the day.", show_default=False)] = None,
    comparison: Compared = "drift",
    schema: SchemaFile = None,
    constraints: ConstraintsFile = None,
    environment: Annotated[str, typer.Option(metavar="NAME", help="Of the constraints.")] = "SERVING",
    html: Html = None,
    limit: Limit = None,
    zone: Zone = None,
    framing: Framed = None,
    settings: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """How far two samples are apart: Jensen-Shannon, L-infinity, PSI, presence; ends with 11 if a threshold is passed."""
    _check_libraries()
    from schemas.errors import SettingsError
    from streams.schema.diff import days_facts, diff_facts, diff_words, refuse

    if len(source) != (1 if days else 2):
        raise SettingsError(f"{len(source)} sources; wanted {'one whose days are compared' if days else 'two, or one with --days'}")
    how = _reading(schema, zone, limit, framing, settings)
    rules = _constraints(schema, constraints, environment, source[0])
    facts = days_facts(source, how, time, rules) if days else diff_facts(source[0], source[1], how, rules, _comparison(comparison))
    if html is not None:
        from streams.schema.page import difference_page

        difference_page(facts, html)
    say(facts, as_json, diff_words)
    refuse(facts)


def _comparison(word: str) -> Comparison:
    from schemas.errors import SettingsError

    if word not in ("drift", "skew"):
        raise SettingsError(f"--as {word}, wanted drift or skew")
    return cast("Comparison", word)


def _constraints(schema: Path | None, file: Path | None, environment: str, source: str) -> Constraints | None:
    """Those of a file, or those beside the schema; they are held against it."""
    from schemas.avro import load_schema
    from schemas.constraints_file import find_constraints, load_constraints
    from schemas.errors import SettingsError

    if schema is None:
        if file is not None:
            raise SettingsError("--constraints stand beside a schema; wanted --schema as well")
        return None
    topic = source.removeprefix("kafka:") if source.startswith("kafka:") else None
    found = file or find_constraints(schema, topic)
    return None if found is None else load_constraints(found, load_schema(schema), environment)


def _check_libraries() -> None:
    from importlib.util import find_spec

    from schemas.errors import MissingProgram

    missing = [name for name in ("datasketches", "jinja2", "pyarrow") if find_spec(name) is None]
    if missing:
        raise MissingProgram(f"{', '.join(missing)} not installed; `pip install 'millrace[checks]'` brings what these verbs need")


def _reading(
    schema: Path | None, zone: str | None, limit: int | None, framing: str | None, settings: Path | None, name: str = "Event"
) -> Reading:
    from schemas.avro import load_schema
    from schemas.errors import SettingsError
    from streams.schema.source import Reading

    if framing not in (None, "confluent", "bare", "json"):
        raise SettingsError(f"--framing {framing}, wanted confluent, bare or json")
    loaded = None if schema is None else load_schema(schema)
    if loaded is not None:
        loaded.fields  # noqa: B018 - refuses what is no record
    folder = Path() if schema is None else schema.parent
    return Reading(loaded, zone, limit, lambda: settings_of(settings), cast(Any, framing), folder, name)
