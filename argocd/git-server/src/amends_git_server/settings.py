"""The settings of the git server, read from the environment by `serving`."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of one server."""

    repository: Path
    """The bare repository; made when it is not there."""
    url: str
    """Where Argo CD knows the repository, without `.git`: what the webhooks name."""
    push_token: str
    read_token: str
    hook_secret: str
    hooks: tuple[str, ...] = ()
    """The URLs that are called after a push."""
    host: str = "127.0.0.1"
    port: int = 8080
    memory: int = 160 * 1024 * 1024
    """The limit of the process's data in bytes, below its container's: a push that needs more fails alone."""

    @classmethod
    def read(cls, environment: Mapping[str, str] = os.environ) -> "Settings":
        """Read AMENDS_GIT_*. Raises KeyError for a name that is missing, OSError for a secret that is."""
        secrets = Path(environment["AMENDS_GIT_SECRETS"])
        return cls(
            repository=Path(environment["AMENDS_GIT_REPOSITORY"]),
            url=environment["AMENDS_GIT_URL"],
            push_token=_secret(secrets / "push"),
            read_token=_secret(secrets / "read"),
            hook_secret=_secret(secrets / "webhook"),
            hooks=tuple(filter(None, environment.get("AMENDS_GIT_HOOKS", "").split(","))),
            host=environment.get("AMENDS_HOST", "127.0.0.1"),
            port=int(environment.get("AMENDS_PORT", "8080")),
            memory=int(environment.get("AMENDS_GIT_MEMORY", "167772160")),
        )


def _secret(path: Path) -> str:
    text = path.read_text(encoding="utf-8").strip()
    if len(text) < 16:
        raise ValueError(f"the secret {path.name} has less than 16 characters")
    return text
