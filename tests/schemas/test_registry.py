from __future__ import annotations

import json
import logging
import re
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from schemas.avro import AvroSchema, load_schema
from schemas.errors import RetryLater, SchemaError, SettingsError
from schemas.registry import ConfluentRegistry, FileRegistry, Registry, open_registry

ONE = AvroSchema.parse({"type": "record", "name": "R", "fields": [{"name": "x", "type": "int"}]})
TWO = AvroSchema.parse({"type": "record", "name": "R", "fields": [{"name": "x", "type": "long"}]})


@pytest.fixture(params=["folder", "mock"])
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> Registry:
    return open_registry(tmp_path if request.param == "folder" else f"mock://{uuid.uuid4()}")


def test_an_unknown_id_and_an_unknown_subject_are_nothing(registry: Registry) -> None:
    assert registry.schema(1) is None
    assert registry.latest("payments-value") is None


def test_what_is_registered_is_found_by_id_and_as_latest(registry: Registry) -> None:
    first = registry.register("payments-value", ONE)
    second = registry.register("payments-value", TWO)
    assert first != second
    assert (registry.schema(first), registry.schema(second)) == (ONE, TWO)
    assert registry.register("payments-value", ONE) == first
    assert registry.latest("scores-value") is None


def test_a_subjects_latest_is_the_last_one_registered(tmp_path: Path) -> None:
    folder = FileRegistry(tmp_path)
    folder.register("a", ONE)
    newest = folder.register("a", TWO)
    folder.register("b", ONE)
    assert folder.latest("a") == (newest, TWO)


def test_two_who_name_one_mock_see_the_same_schemas() -> None:
    url = f"mock://{uuid.uuid4()}"
    schema_id = open_registry(url).register("s", ONE)
    assert open_registry(url).schema(schema_id) == ONE


def test_a_file_added_later_is_found(tmp_path: Path) -> None:
    folder = FileRegistry(tmp_path)
    assert folder.schema(12) is None
    (tmp_path / "12-late-value.avsc").write_text(json.dumps(ONE.definition))
    assert folder.schema(12) == ONE
    assert folder.latest("late-value") == (12, ONE)
    assert folder.register("other", TWO) == 13


def test_a_folder_that_contradicts_itself_is_refused_at_start(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match="missing"):
        FileRegistry(tmp_path / "nowhere")
    (tmp_path / "1-a.avsc").write_text("{")
    with pytest.raises(SchemaError, match=r"1-a\.avsc is not JSON"):
        FileRegistry(tmp_path).latest("a")
    with pytest.raises(SchemaError, match=r"1-a\.avsc is not JSON"):
        FileRegistry(tmp_path).register("a", ONE)
    (tmp_path / "1-b.avsc").write_text(json.dumps(ONE.definition))
    with pytest.raises(SchemaError, match="have one id"):
        FileRegistry(tmp_path).latest("c")
    with pytest.raises(SchemaError, match="have one id"):
        FileRegistry(tmp_path).register("c", ONE)


@pytest.mark.parametrize("half", [b"", b"{", json.dumps(ONE.definition)[:-4].encode(), b'"imt"', b"\xc3"])
def test_a_file_half_written_is_unknown_by_id_and_found_when_it_is_whole(
    half: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = FileRegistry(tmp_path)
    (tmp_path / "7-late-value.avsc").write_bytes(half)
    assert [folder.schema(7), folder.schema(7)] == [None, None]
    assert [(record.levelno, "schema_id=7" in record.getMessage()) for record in caplog.records] == [(logging.WARNING, True)]
    (tmp_path / "7-late-value.avsc").write_text(json.dumps(ONE.definition))
    assert folder.schema(7) == ONE


def test_two_files_of_one_id_make_that_id_unknown_and_no_other(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = FileRegistry(tmp_path)
    for name in ("1-a.avsc", "01-b.avsc", "2-a.avsc"):
        (tmp_path / name).write_text(json.dumps(ONE.definition))
    (tmp_path / "3-a.avsc").write_text("{")
    assert [folder.schema(1), folder.schema(2)] == [None, ONE]
    assert "01-b.avsc and 1-a.avsc" in caplog.text
    (tmp_path / "01-b.avsc").unlink()
    assert folder.schema(1) == ONE


def test_a_file_that_the_disk_does_not_give_is_asked_for_again_later(tmp_path: Path) -> None:
    (tmp_path / "1-a.avsc").symlink_to("1-a.avsc")
    with pytest.raises(RetryLater, match=r"1-a\.avsc can't be read"):
        FileRegistry(tmp_path).schema(1)


def test_ids_registered_at_the_same_time_are_different(tmp_path: Path) -> None:
    found: list[int] = []
    threads = [threading.Thread(target=lambda i=i: found.append(FileRegistry(tmp_path).register(f"s{i}", ONE))) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == list(range(1, 9))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in tmp_path.glob("*.avsc"))


Answer = Callable[[str, str], tuple[int, Any]]


@contextmanager
def server(answer: Answer, credentials: list[str | None] | None = None) -> Iterator[str]:
    """A registry's API on a free port, answering as told; notes who says he asks."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if credentials is not None:
                credentials.append(self.headers.get("Authorization"))
            status, body = answer(self.command, self.path)
            data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.do_GET()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_address[1]}"
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


def confluent(url: str) -> ConfluentRegistry:
    return ConfluentRegistry(url, {"max.retries": 0, "timeout": 5})


def test_a_schema_found_once_is_not_asked_for_again() -> None:
    asked: list[str] = []

    def answer(method: str, path: str) -> tuple[int, Any]:
        asked.append(path)
        return 200, {"schema": json.dumps(ONE.definition)}

    with server(answer) as url:
        registry = confluent(url)
        assert [registry.schema(5), registry.schema(5)] == [ONE, ONE]
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, {"error_code": 500, "message": "down"}),
        (404, "<html>no such page</html>"),
        (401, {"error_code": 401, "message": "who are you"}),
        (403, {"error_code": 40301, "message": "not yours"}),
        (429, "slow"),
        (409, {"error_code": 409, "message": "in conflict"}),
        (422, {"error_code": 42201, "message": "can't be"}),
        (404, {"error_code": 404, "message": "no such path"}),
        (200, "<html>please log in</html>"),
        (200, ""),
        (200, []),
        (200, "null"),
    ],
)
def test_a_registry_that_gives_no_answer_is_asked_again_later(status: int, body: Any) -> None:
    with server(lambda method, path: (status, body)) as url:
        with pytest.raises(RetryLater, match=url.removeprefix("http://")):
            confluent(url).schema(5)
        with pytest.raises(RetryLater):
            confluent(url).latest("s")


def test_a_registry_that_is_gone_is_asked_again_later() -> None:
    with server(lambda method, path: (200, {})) as url:
        pass
    with pytest.raises(RetryLater, match="does not answer"):
        confluent(url.replace("//", "//user:secret@")).schema(5)
    with pytest.raises(RetryLater) as caught:
        confluent(url.replace("//", "//user:secret@")).schema(5)
    assert "secret" not in str(caught.value)


def test_a_registry_that_gives_an_id_to_another_schema_is_refused_by_name() -> None:
    given = [ONE]

    def answer(method: str, path: str) -> tuple[int, Any]:
        body = {"schema": json.dumps(given[0].definition)}
        return 200, body if path.startswith("/schemas/ids/") else {**body, "id": 5, "version": 1, "subject": "s"}

    with server(answer) as url:
        registry = confluent(url)
        assert registry.schema(5) == ONE
        assert registry.latest("s") == (5, ONE)
        registry._client.clear_caches()
        given[0] = TWO
        with pytest.raises(SchemaError, match="gives another schema for id 5 than before, as the latest of s"):
            registry.latest("s")
        assert registry.schema(5) == ONE  # what was decoded with it stays what it was


def test_a_user_and_password_from_the_settings_go_with_every_question() -> None:
    seen: list[str | None] = []

    with server(lambda method, path: (200, {"schema": json.dumps(ONE.definition)}), seen) as url:
        options = {"max.retries": 0, "timeout": 5, "basic.auth.user.info": "user:secret"}
        assert ConfluentRegistry(url, options).schema(5) == ONE
    assert seen == ["Basic dXNlcjpzZWNyZXQ="]


def test_a_question_that_fails_once_is_asked_again_by_the_client() -> None:
    answers = iter([(503, {"error_code": 503, "message": "starting"}), (200, {"schema": json.dumps(ONE.definition)})])
    with server(lambda method, path: next(answers)) as url:
        options = {"max.retries": 2, "retries.wait.ms": 1, "retries.max.wait.ms": 5, "timeout": 5}
        assert ConfluentRegistry(url, options).schema(5) == ONE


@pytest.mark.parametrize("code", [40401, 40402, 40403])
def test_a_registrys_own_not_found_means_there_is_none(code: int) -> None:
    with server(lambda method, path: (404, {"error_code": code, "message": "not found"})) as url:
        assert confluent(url).schema(5) is None
        assert confluent(url).latest("s") is None


OTHER_THINGS = {
    r"of type JSON": {"schema": "{}", "schemaType": "JSON"},
    r"refers to other schemas \(Other\)": {
        "schema": json.dumps(ONE.definition),
        "references": [{"name": "Other", "subject": "o", "version": 1}],
    },
    r"is not JSON": {"schema": json.dumps(ONE.definition)[:-4]},
    r"is not an Avro schema": {"schema": '{"type": "record"}'},
    r"is not an Avro schema: Unknown": {"schema": '"imt"'},
    r"is not an Avro schema: TypeError": {},
    r"nested too deep": {"schema": '{"type": "array", "items": ' * 3_000 + '"int"' + "}" * 3_000},
}


@pytest.mark.parametrize(("words", "thing"), OTHER_THINGS.items())
def test_what_is_no_avro_schema_is_unknown_by_id_until_it_is_one(words: str, thing: Any, caplog: pytest.LogCaptureFixture) -> None:
    answers = [thing, thing, {"schema": json.dumps(ONE.definition)}]
    with server(lambda method, path: (200, answers.pop(0))) as url:
        registry = confluent(url)
        assert [registry.schema(5), registry.schema(5), registry.schema(5)] == [None, None, ONE]
    assert [record.levelno for record in caplog.records if record.name == "schemas.registry"] == [logging.WARNING]
    assert re.search(f"schema_id=5 .*{words}", caplog.text)


@pytest.mark.parametrize(("words", "thing"), OTHER_THINGS.items())
def test_a_subject_whose_latest_is_no_avro_schema_is_refused(words: str, thing: Any) -> None:
    with (
        server(lambda method, path: (200, {"subject": "s", "version": 1, **thing, "id": 5})) as url,
        pytest.raises(SchemaError, match=words),
    ):
        confluent(url).latest("s")


def test_an_incompatible_schema_is_refused_and_not_tried_again() -> None:
    with (
        server(lambda method, path: (409, {"error_code": 409, "message": "incompatible"})) as url,
        pytest.raises(SchemaError, match="incompatible"),
    ):
        confluent(url).register("s", ONE)


def test_an_unknown_option_is_named() -> None:
    with pytest.raises(SettingsError, match="nonsense"):
        ConfluentRegistry("http://127.0.0.1:1", {"nonsense": 1})


def test_a_schema_file_that_is_missing_or_broken_is_named(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match=r"nowhere\.avsc can't be read"):
        load_schema(tmp_path / "nowhere.avsc")
    (tmp_path / "a.avsc").write_text('{"type": "record", "name": "R", "fields": [{"name": "x", "type": "imt"}]}')
    with pytest.raises(SchemaError, match="imt"):
        load_schema(tmp_path / "a.avsc")


def test_a_fingerprint_names_all_that_a_reader_sees_and_no_more() -> None:
    base: dict[str, Any] = {"type": "record", "name": "R", "fields": [{"name": "x", "type": "long"}]}
    other: list[Any] = [
        {**base, "fields": [{"name": "x", "type": {"type": "long", "logicalType": "timestamp-millis"}}]},
        {**base, "fields": [{"name": "x", "type": "long", "default": 0}]},
        {**base, "fields": [{"name": "x", "type": "long", "aliases": ["y"]}]},
        {**base, "name": "S"},
    ]
    prints = {AvroSchema.parse(each).fingerprint for each in [base, *other]}
    assert len(prints) == 5
    assert AvroSchema.parse({**base, "doc": "words"}).fingerprint == AvroSchema.parse(base).fingerprint
