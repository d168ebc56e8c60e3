"""The door to a schema registry behind TLS and a password, against a local double of the documented REST API.

The double keeps schemas by subject and id, and answers what its real counterpart documents: schemas by id, a subject's latest version,
look-up and registration. It can be slow, lie, or be gone; each of these is one line that says what is wrong.
"""

from __future__ import annotations

import base64
import json
import re
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pytest

from schemas.avro import AvroSchema
from schemas.errors import RetryLater, SchemaError
from schemas.registry import ConfluentRegistry, registered_id
from tests.security.certificates import Authority, Identity
from tests.streams.command_line import Run, runner

USER, PASSWORD = "worker", "p/a?s#s@word"
ONE = AvroSchema.parse({"type": "record", "name": "R", "fields": [{"name": "x", "type": "int"}]})
TWO = AvroSchema.parse(
    {"type": "record", "name": "R", "fields": [{"name": "x", "type": "int"}, {"name": "y", "type": "int", "default": 0}]}
)
NOT_FOUND = {
    "subject": (404, {"error_code": 40401, "message": "Subject not found."}),
    "schema": (404, {"error_code": 40403, "message": "Schema not found"}),
}


@dataclass
class Double:
    """A double of a schema registry.

    Attributes:
        subjects: by name, the ids of its versions in their order.
        texts: schemas by id.
        asked: the requests it answered.
        lie: answers in place of the truth, by path.
        hold: set = answers; cleared = it takes requests and says nothing.
    """

    subjects: dict[str, list[int]] = field(default_factory=dict)
    texts: dict[int, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    lie: dict[str, Any] = field(default_factory=dict)
    hold: threading.Event = field(default_factory=threading.Event)
    port: int = 0

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        self.asked.append(f"{method} {path}")
        if path in self.lie:
            return 200, self.lie[path]
        if found := re.fullmatch(r"/schemas/ids/(\d+)", path):
            text = self.texts.get(int(found[1]))
            return NOT_FOUND["schema"] if text is None else (200, {"schema": text})
        if found := re.fullmatch(r"/subjects/([^/]+)/versions(/latest)?", path):
            return self._register(found[1], body["schema"]) if method == "POST" else self._version(found[1], -1)
        if (found := re.fullmatch(r"/subjects/([^/]+)", path)) and method == "POST":
            alike = [place for place, each in enumerate(self.subjects.get(found[1], [])) if self.texts[each] == body["schema"]]
            return self._version(found[1], alike[0]) if alike else NOT_FOUND["schema"]
        return 404, {"error_code": 404, "message": "HTTP 404 Not Found"}

    def _version(self, subject: str, place: int) -> tuple[int, Any]:
        ids = self.subjects.get(subject)
        if not ids:
            return NOT_FOUND["subject"]
        found = ids[place]
        return 200, {"subject": subject, "id": found, "version": ids.index(found) + 1, "schema": self.texts[found]}

    def _register(self, subject: str, text: str) -> tuple[int, Any]:
        number = next((each for each, known in self.texts.items() if known == text), len(self.texts) + 1)
        self.texts[number] = text
        if number not in self.subjects.setdefault(subject, []):
            self.subjects[subject].append(number)
        return 200, {"id": number}


def served(double: Double, context: ssl.SSLContext) -> ThreadingHTTPServer:
    """Its API on a free port, behind TLS, for whoever knows the password."""
    wanted = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            double.hold.wait(20)
            if self.headers.get("Authorization") != wanted:
                status, said = 401, {"error_code": 401, "message": "Unauthorized"}
            else:
                status, said = double.answer(self.command, unquote(self.path.partition("?")[0]), json.loads(body or b"null"))
            data = said.encode() if isinstance(said, str) else json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            pass

    class Server(ThreadingHTTPServer):
        def get_request(self) -> Any:
            connection, address = super().get_request()
            connection.settimeout(20)
            return context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False), address

        def handle_error(self, request: object, client_address: object) -> None:
            pass  # whoever does not trust us, or is not trusted, ends the handshake

    return Server(("127.0.0.1", 0), Handler)


@dataclass(frozen=True)
class Place:
    double: Double
    authority: Authority
    client: Identity

    def url(self, password: str = PASSWORD, scheme: str = "https") -> str:
        return f"{scheme}://{USER}:{quote(password, safe='')}@127.0.0.1:{self.double.port}"

    def open(self, **options: Any) -> ConfluentRegistry:
        """The door, with a client that trusts the authority and asks once."""
        return ConfluentRegistry(self.url(), {"ssl.ca.location": str(self.authority.file), "max.retries": 0, "timeout": 5, **options})


@pytest.fixture(params=["password", "password and certificate"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    authority = Authority(tmp_path / "authority")
    server, client = authority.vouch("registry"), authority.vouch("client")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server.both)
    if request.param == "password and certificate":
        context.load_verify_locations(authority.file)
        context.verify_mode = ssl.CERT_REQUIRED
    double = Double()
    double.hold.set()
    http = served(double, context)
    double.port = http.server_address[1]
    thread = threading.Thread(target=http.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield Place(double, authority, client)
    finally:
        double.hold.set()
        http.shutdown()
        thread.join()
        http.server_close()


@pytest.fixture
def keys(place: Place) -> dict[str, str]:
    """The client's keys: whom it trusts, and what it shows."""
    return {
        "ssl.ca.location": str(place.authority.file),
        "ssl.certificate.location": str(place.client.certificate),
        "ssl.key.location": str(place.client.key),
    }


@pytest.fixture
def millrace(
    place: Place, keys: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    (tmp_path / "one.avsc").write_text(json.dumps(ONE.definition))
    monkeypatch.setenv("SCHEMA_REGISTRY_URL", place.url())
    for name, value in {**keys, "max.retries": "0", "timeout": "5"}.items():
        monkeypatch.setenv(f"MILLRACE_REGISTRY__CLIENT__{name.replace('.', '_').upper()}", value)
    return runner(tmp_path, monkeypatch, capsys)


def register(millrace: Run) -> tuple[int, str]:
    """How `schema register` ends; whatever it says is one line without the password."""
    done = millrace("schema", "register", "one.avsc", "--subject", "r-value")
    assert len((done.err or done.out).splitlines()) == 1, done.err
    assert PASSWORD not in done.err and quote(PASSWORD, safe="") not in done.err
    return done.code, done.err or done.out


def test_all_that_is_asked_of_a_registry_goes_through_tls_with_the_password(place: Place, keys: dict[str, str], millrace: Run) -> None:
    code, said = register(millrace)
    assert (code, place.double.subjects) == (0, {"r-value": [1]}), said
    door = place.open(**keys)
    assert door.register("r-value", TWO) == 2
    assert place.open(**keys).latest("r-value") == (2, TWO)
    assert place.open(**keys).schema(1) == ONE
    assert (place.open(**keys).schema(9), place.open(**keys).latest("nobody")) == (None, None)
    assert registered_id(place.open(**keys), "r-value", ONE) == (1, "")
    assert registered_id(place.open(**keys), "nobody", ONE) == (None, "is not registered")
    assert register(millrace)[0] == 0 and place.double.subjects == {"r-value": [1, 2]}, "what is there is found again"
    assert {each.partition(" ")[0] for each in place.double.asked} == {"GET", "POST"}


def test_who_is_not_who_he_should_be_is_told_in_one_line(
    place: Place, millrace: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path / "stranger")
    monkeypatch.setenv("MILLRACE_REGISTRY__CLIENT__SSL_CA_LOCATION", str(stranger.file))
    code, said = register(millrace)
    assert (code, "CERTIFICATE_VERIFY_FAILED" in said, f"https://127.0.0.1:{place.double.port}" in said) == (75, True, True), said
    monkeypatch.setenv("MILLRACE_REGISTRY__CLIENT__SSL_CA_LOCATION", str(place.authority.file))
    monkeypatch.setenv("SCHEMA_REGISTRY_URL", place.url(password="wrong"))
    code, said = register(millrace)
    assert (code, "Unauthorized" in said) == (75, True), said
    monkeypatch.setenv("SCHEMA_REGISTRY_URL", place.url(scheme="http"))
    code, said = register(millrace)
    assert (code, "does not answer" in said) == (75, True), said
    monkeypatch.setenv("SCHEMA_REGISTRY_URL", place.url())
    (tmp_path / "empty.pem").write_text("")
    for name in ("nowhere.pem", "empty.pem"):
        monkeypatch.setenv("MILLRACE_REGISTRY__CLIENT__SSL_CA_LOCATION", str(tmp_path / name))
        code, said = register(millrace)
        assert code == 13 and f"ssl.ca.location={tmp_path / name}" in said and "wanted files in PEM" in said, said
    assert place.double.asked == [] and place.double.subjects == {}, "nobody was told anything"


def test_one_that_takes_too_long_is_given_up_in_one_line(place: Place, millrace: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLRACE_REGISTRY__CLIENT__TIMEOUT", "0.3")
    place.double.hold.clear()
    code, said = register(millrace)
    assert (code, "does not answer: ReadTimeout" in said) == (75, True), said
    place.double.hold.set()
    assert register(millrace)[0] == 0


LIES: dict[str, tuple[Any, str]] = {
    "a page for people": ("<html>please log in</html>", "does not answer as one"),
    "half an answer": ('{"schema": "{\\"type\\"', "does not answer as one"),
    "no Avro": ({"subject": "r-value", "id": 1, "version": 1, "schema": '{"type": "imt"}'}, "is not an Avro schema"),
    "another type": (
        {"subject": "r-value", "id": 1, "version": 1, "schema": "{}", "schemaType": "PROTOBUF"},
        "of type PROTOBUF, wanted AVRO",
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_one_that_answers_something_else_is_told_in_one_line(place: Place, keys: dict[str, str], lie: str) -> None:
    said, words = LIES[lie]
    place.double.lie["/subjects/r-value/versions/latest"] = said
    with pytest.raises((RetryLater, SchemaError), match=words) as found:
        place.open(**keys).latest("r-value")
    assert "\n" not in str(found.value)
    assert f"https://127.0.0.1:{place.double.port}" in str(found.value)


def test_one_that_gives_an_id_to_another_schema_is_found_out(place: Place, keys: dict[str, str]) -> None:
    door = place.open(**keys)
    door.register("r-value", ONE)
    assert door.schema(1) == ONE
    place.double.lie["/subjects/r-value/versions/latest"] = {
        "subject": "r-value",
        "id": 1,
        "version": 2,
        "schema": json.dumps(TWO.definition),
    }
    with pytest.raises(SchemaError, match="gives another schema for id 1 than before, as the latest of r-value"):
        door.latest("r-value")


def test_one_that_is_gone_is_told_in_one_line_and_found_when_it_is_back(
    place: Place, millrace: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCHEMA_REGISTRY_URL", place.url().replace(str(place.double.port), "1"))
    code, said = register(millrace)
    assert (code, "schema registry https://127.0.0.1:1 does not answer: ConnectError" in said) == (75, True), said
    monkeypatch.setenv("SCHEMA_REGISTRY_URL", place.url())
    assert register(millrace)[0] == 0
