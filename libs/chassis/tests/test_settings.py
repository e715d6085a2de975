from datetime import timedelta

import pytest
from amends_chassis.settings import LogLevel, ServiceSettings
from pydantic import SecretStr, ValidationError


class Settings(ServiceSettings):
    name: str = "gift-cards"
    api_key: SecretStr | None = None


def test_every_setting_has_a_safe_default():
    found = Settings()
    assert (found.host, found.port, found.metrics_port, found.database_url) == ("127.0.0.1", 0, 0, None)
    assert found.drain == timedelta(seconds=10)


def test_the_port_of_a_service_by_name_wins_over_the_port_of_all(monkeypatch):
    monkeypatch.setenv("AMENDS_PORT", "1000")
    assert Settings().port == 1000
    monkeypatch.setenv("AMENDS_PORT_GIFT_CARDS", "2000")
    assert Settings().port == 2000
    assert Settings(port=3000).port == 3000
    assert Settings(name="other").port == 1000


def test_a_secret_comes_from_a_file_and_is_not_printed(monkeypatch, tmp_path):
    (tmp_path / "url").write_text("postgresql://me:hidden@localhost/db\n")
    monkeypatch.setenv("AMENDS_DATABASE_URL_FILE", str(tmp_path / "url"))
    monkeypatch.setenv("AMENDS_DATABASE_URL", "postgresql://other")
    found = Settings()
    assert found.database_url is not None
    assert found.database_url.get_secret_value() == "postgresql://me:hidden@localhost/db"
    assert "hidden" not in repr(found)


def test_a_secret_in_a_file_is_what_the_file_says_when_it_is_used(monkeypatch, tmp_path):
    file = tmp_path / "url"
    file.write_text("first\n")
    monkeypatch.setenv("AMENDS_DATABASE_URL_FILE", str(file))
    secret = Settings().database_url
    assert secret is not None
    file.write_text("second\r\n")
    assert secret.get_secret_value() == "second"
    file.write_text("")  # in the middle of being written
    assert secret.get_secret_value() == "second"
    file.unlink()
    assert secret.get_secret_value() == "second"
    assert "second" not in repr(secret)


def test_secrets_of_a_service_may_be_files_too(monkeypatch, tmp_path):
    (tmp_path / "key").write_text("k")
    monkeypatch.setenv("AMENDS_API_KEY_FILE", str(tmp_path / "key"))
    key = Settings().api_key
    assert key is not None
    assert key.get_secret_value() == "k"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("250ms", timedelta(milliseconds=250)),
        ("1.5s", timedelta(seconds=1.5)),
        ("5m", timedelta(minutes=5)),
        ("2h", timedelta(hours=2)),
        ("30d", timedelta(days=30)),
        ("PT10S", timedelta(seconds=10)),
    ],
)
def test_lengths_of_time_are_written_as_people_write_them(monkeypatch, text, value):
    monkeypatch.setenv("AMENDS_DRAIN", text)
    assert Settings().drain == value


@pytest.mark.parametrize(
    ("variable", "value"),
    [("AMENDS_PORT", "70000"), ("AMENDS_CALL_TIMEOUT", "0s"), ("AMENDS_TRACE_RATIO", "2"), ("AMENDS_DRAIN", "soon")],
)
def test_a_value_that_makes_no_sense_is_refused(monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    with pytest.raises(ValidationError):
        Settings()


def test_empty_variables_count_as_unset(monkeypatch):
    monkeypatch.setenv("AMENDS_LOG_LEVEL", "")
    assert Settings().log_level is LogLevel.INFO
