"""The settings that every service has, read from the environment. Services subclass `ServiceSettings`.

Every value is `AMENDS_<FIELD>`. Two come by other names too: the port from `AMENDS_PORT_<NAME>`, because the
services of a shop share an environment on a developer's machine, and secrets from a file (`AMENDS_DATABASE_URL_FILE`),
because that is how secrets are mounted. Such a file is read again whenever its secret is used.
"""

import os
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, ClassVar

import structlog
from amends_resilience.durations import LONGEST, parse_duration
from pydantic import BeforeValidator, Field, SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

_log = structlog.get_logger(__name__)

UNREADABLE = "secret.unreadable"


def _read_duration(value: object) -> object:
    """Turn a duration's text into a timedelta; leave ISO 8601 to pydantic. Raises ValueError."""
    if not isinstance(value, str) or value.strip().startswith("P"):
        return value
    return parse_duration(value.strip())


Duration = Annotated[timedelta, BeforeValidator(_read_duration), Field(ge=timedelta(0), le=LONGEST)]
"""A setting that is a length of time up to a hundred years: `10s`, `1m30s` and the like, or ISO 8601 (`PT10S`)."""

PositiveDuration = Annotated[Duration, Field(gt=timedelta(0))]


class MountedSecret(SecretStr):
    """A secret in a file, as it is when it is asked for: who changes it need not restart those who use it."""

    def __init__(self, path: Path) -> None:
        """Read the file once. Raises OSError or UnicodeDecodeError when it cannot be read."""
        super().__init__(_read(path))
        self._path = path

    def get_secret_value(self) -> str:
        """Return what the file says now; what it said last while it cannot be read or is empty."""
        try:
            self._secret_value = _read(self._path) or self._secret_value
        except (OSError, UnicodeDecodeError) as error:
            _log.warning(UNREADABLE, path=str(self._path), error=f"{type(error).__name__}: {error}")
        return self._secret_value


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8").strip()


class LogFormat(StrEnum):
    """The formats of log lines."""

    JSON = "json"
    CONSOLE = "console"


class LogLevel(StrEnum):
    """From which severity on lines are written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class ServiceSettings(BaseSettings):
    """The settings every service has. A subclass gives `name` a default and adds its own fields."""

    model_config = SettingsConfigDict(env_prefix="AMENDS_", frozen=True, extra="ignore", env_ignore_empty=True)

    migrations: ClassVar[str | None] = None
    """Package of the SQL migrations; None: `<package of the settings class>.migrations` if there is one."""

    name: str
    """Short name, e.g. `payments`: in logs, the report, the metrics, and in AMENDS_PORT_<NAME>."""
    host: str = "127.0.0.1"
    port: int = Field(default=0, ge=0, le=65535)
    metrics_port: int = Field(default=0, ge=0, le=65535)
    health_port: int | None = Field(default=None, ge=0, le=65535)
    """A port of its own for grpc.health.v1, for whoever restarts the service: however many calls come in at `port`, its
    checks are answered, and without TLS. None: they are answered at `port` alone."""
    database_url: SecretStr | None = None
    migrations_database_url: SecretStr | None = None
    """The same database under the role that owns its tables, for migrations alone; None: `database_url` owns them.

    The role of `database_url` is then given what serving takes: to read and write rows."""
    database_pool: int = Field(default=8, ge=1, le=200)
    log_level: LogLevel = LogLevel.INFO
    log_format: LogFormat = LogFormat.JSON
    otlp_endpoint: str | None = None
    """Where spans go (OTLP over gRPC, e.g. http://127.0.0.1:4317); None: nowhere, but traces are passed on."""
    trace_ratio: float = Field(default=0.01, ge=0.0, le=1.0)
    """Share of the calls without a trace context that begin a sampled trace."""
    report_file: Path | None = None
    """Where the service says, as JSON, which addresses it got."""
    drain: Duration = timedelta(seconds=10)
    """How long calls in flight may take to finish after SIGTERM."""
    reflection: bool = True
    max_message_bytes: int = Field(default=4 * 1024 * 1024, ge=1024)
    max_request_bytes: int | None = Field(default=None, ge=1024)
    """The largest request that is read; None: `max_message_bytes`, which bounds answers too. A request is held in
    memory several times over while it is taken apart, so a service whose requests are small says so."""
    max_concurrent_calls: int = Field(default=1024, ge=1)
    """How many calls are served at once, half of them streams; checks of health are served beside them."""
    call_timeout: PositiveDuration = timedelta(seconds=10)
    """Deadline of unary calls that come without one, and of outgoing calls made without one."""
    max_connection_age: PositiveDuration = timedelta(minutes=30)
    """After this long a client is asked to connect again, so that it finds new replicas and certificates, and so that
    what nobody reads ends."""
    tls_dir: Path | None = None
    """The folder of tls.crt, tls.key and ca.crt: all calls, in and out, are mutual TLS; None: plain text."""
    access: Path | None = None
    """The file that says who may call which method, by the certificate; None: everybody who can connect."""
    token_issuer: str | None = None
    """Who gives out the access tokens of people (`iss`), compared exactly; None: nobody has to show one."""
    token_audience: str | None = None
    """Whom tokens must be for (`aud`); needed where there is an issuer."""
    token_keys_url: str | None = None
    """Where the issuer's public keys are; None: at /.well-known/jwks.json of the issuer."""
    token_keys_file: Path | None = None
    """A file that keeps the keys for a restart while the issuer is away; None: they are kept in memory alone."""
    token_required: bool = True
    """Whether methods for people refuse calls without a token. If not, such a call is taken for a service's: a step on
    the way for an installation whose callers do not show tokens yet."""
    retry_policies: Path | None = None
    """The compiled RetryPolicies (policies.json of the mounted ConfigMap) that outgoing calls follow; None: none."""
    broker: SecretStr | None = None
    """Where events go and come from: nats://HOST:PORT or kafka://HOST:PORT[,HOST:PORT]; None: they wait in the
    outbox."""
    broker_retention: PositiveDuration = timedelta(days=7)
    """How long topics keep events, for those that this service makes."""
    outbox_keep: Duration = timedelta(0)
    """How long the database keeps what was published, so that it can be published again to a broker that has lost it;
    0: not at all."""
    barrier_retention: PositiveDuration = timedelta(days=30)
    """How long guarded methods remember keys. A safety rule: longer than any run can live."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read arguments first, then the two special names, then the environment."""
        return init_settings, _SpecialNames(settings_cls), env_settings


class _SpecialNames(PydanticBaseSettingsSource):
    """AMENDS_PORT_<NAME>, and AMENDS_<FIELD>_FILE for every secret field."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        default = self.settings_cls.model_fields["name"].default
        name = self.current_state.get("name") or os.environ.get("AMENDS_NAME") or default
        if isinstance(name, str) and (port := os.environ.get(f"AMENDS_PORT_{name.upper().replace('-', '_')}")):
            found["port"] = port
        for field, info in self.settings_cls.model_fields.items():
            path = os.environ.get(f"AMENDS_{field.upper()}_FILE")
            if path and "SecretStr" in str(info.annotation):
                found[field] = MountedSecret(Path(path))
        return found
