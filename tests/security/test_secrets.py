"""No secret is said by settings, whatever is wrong with it or beside it."""

from __future__ import annotations

import json
import logging
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import MillraceError, RetryLater, SettingsError
from schemas.registry import open_registry
from streams.load_settings import load_settings, settings_words
from streams.log import write_log
from streams.settings import Settings
from tests.schemas.test_registry import server
from transforms.redis_store import RedisStore

SECRET = "hunter2zq"
SECRET_KEYS = (
    "sasl.password",
    "ssl.key.password",
    "ssl.keystore.password",
    "ssl.key.pem",
    "ssl.certificate.pem",
    "sasl.oauthbearer.config",
    "sasl.oauthbearer.client.secret",
    "sasl.oauthbearer.assertion.private.key.passphrase",
    "sasl.oauthbearer.assertion.private.key.pem",
    "sasl.kerberos.kinit.cmd",
    "basic.auth.user.info",
    "bearer.auth.token",
    "bearer.auth.client.secret",
    "proxy",
)
PASSWORDS = st.builds(
    lambda before, after: before + SECRET + after,
    *[st.text(st.sampled_from(string.printable.strip() + "℀éß"), max_size=6)] * 2,
)  # fmt: skip


def everything_said(settings: Settings) -> str:
    facts = settings.model_dump(mode="json")
    return f"{settings!r} {settings} {json.dumps(facts)} {settings_words(facts)} {settings.model_dump()}"


def loaded(environment: dict[str, str]) -> tuple[Settings | None, str]:
    """The settings, and all they say of themselves; or what is said in refusing them."""
    try:
        settings = load_settings(None, environment)
    except SettingsError as error:
        return None, str(error)
    return settings, everything_said(settings)


@pytest.mark.parametrize("key", SECRET_KEYS)
def test_a_client_key_that_holds_a_secret_is_shown_as_stars_and_given_to_the_client_whole(key: str) -> None:
    variable = key.upper().replace(".", "_")
    for section in ("kafka", "registry"):
        settings = load_settings(None, {f"MILLRACE_{section.upper()}__CLIENT__{variable}": SECRET})
        assert SECRET not in everything_said(settings)
        assert getattr(settings, section).client_keys == {key: SECRET}


@given(PASSWORDS)
def test_an_address_with_any_password_in_it_is_taken_or_refused_without_a_word_of_it(password: str) -> None:
    for variable, url in (
        ("REDIS_URL", f"redis://user:{password}@127.0.0.1:1/0"),
        ("REDIS_URL", f"redis://:{password}@127.0.0.1:1"),
        ("REDIS_URL", f"redis://user:{password.replace('@', '')}"),  # its host forgotten
        ("REDIS_URL", f"redis+cluster://user:{password}@127.0.0.1:1,127.0.0.1:2"),
        ("REDIS_URL", f"unix://user:{password}@/no/such.sock"),
        ("REDIS_URL", f"redis://127.0.0.1:1/0?password={password}"),
        ("SCHEMA_REGISTRY_URL", f"http://user:{password}@127.0.0.1:1"),
        ("SCHEMA_REGISTRY_URL", f"https://user:{password}@a,https://user:{password}@b:1/path"),
        ("SCHEMA_REGISTRY_URL", f"http://user:{password.replace('@', '')}"),
    ):
        settings, said = loaded({variable: url})
        assert SECRET not in said
        if settings is None:
            continue
        if variable == "REDIS_URL":
            store = settings.redis.url.get_secret_value()
            with pytest.raises(MillraceError) as refused:
                RedisStore(store, "n", 0.001).claim("0", {})
            assert SECRET not in str(refused.value)


@pytest.mark.parametrize("name", ["m.toml", "m.yaml"])
@given(
    password=PASSWORDS, form=st.sampled_from(["{}", "'{}", '"{}', "[{}", "{{}", "&{}", "*{}", "!{}", "%{}", "{}:", "- {}", "{}\t", "`{}"])
)
def test_a_file_that_is_broken_at_a_secret_is_refused_without_it(
    name: str, password: str, form: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.getbasetemp() / name
    joint = " = " if name == "m.toml" else ": "
    file.write_text(f"redis{joint}\n  url{joint}{form.replace('{}', password)}\n  password{joint}{password}\n")
    with pytest.raises(SettingsError) as refused:
        load_settings(file, {})
    assert SECRET not in str(refused.value)
    assert SECRET not in str(refused.value.__cause__)


def test_a_secret_in_place_of_the_path_of_its_file_is_not_repeated() -> None:
    with pytest.raises(SettingsError, match="can't be read") as refused:
        load_settings(None, {"MILLRACE_KAFKA__CLIENT__SASL_PASSWORD_FILE": SECRET})
    assert SECRET not in str(refused.value)


def test_a_registrys_password_is_told_to_the_registry_and_to_no_log(capsys: pytest.CaptureFixture[str]) -> None:
    credentials: list[str | None] = []
    root = logging.getLogger()
    before = root.handlers[:], root.level
    try:
        write_log("debug")
        with server(lambda method, path: (500, {"error_code": 500, "message": "down"}), credentials) as url:
            options = {"max.retries": 0}
            with pytest.raises(RetryLater) as answered:
                open_registry(url.replace("//", f"//user:{SECRET}%40@"), options).schema(1)
            with pytest.raises(RetryLater) as gone:
                open_registry(f"http://user:{SECRET}@127.0.0.1:1,http://user:{SECRET}@127.0.0.1:2", options).schema(1)
    finally:
        root.handlers[:], root.level = before
    assert credentials == ["Basic dXNlcjpodW50ZXIyenFA"]
    assert SECRET not in capsys.readouterr().err + str(answered.value) + str(gone.value)
