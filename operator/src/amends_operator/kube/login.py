"""The operator's login: kopf's own readers of the service account or the kubeconfig, without a client library."""

from __future__ import annotations

import asyncio
import logging

import aiohttp
import kopf

_log = logging.getLogger(__name__)
_SETTINGS = kopf.OperatorSettings()


class LoginError(RuntimeError):
    """There is neither a service account nor a kubeconfig."""


async def credentials() -> kopf.ConnectionInfo:
    """Read what to connect with, now: tokens of service accounts are exchanged every hour. Raises LoginError."""
    info = await asyncio.to_thread(_read)
    if info is None:
        raise LoginError("neither a mounted service account nor a kubeconfig was found")
    return info


def _read() -> kopf.ConnectionInfo | None:
    found = kopf.login_with_service_account(logger=_log, settings=_SETTINGS) or kopf.login_with_kubeconfig(
        logger=_log, settings=_SETTINGS
    )
    return found if isinstance(found, kopf.ConnectionInfo) else None


def session_of(info: kopf.ConnectionInfo, *traces: aiohttp.TraceConfig) -> aiohttp.ClientSession:
    """Open HTTP connections with these credentials; `traces` see every call."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=info.as_ssl_context()),
        headers={**info.as_http_headers(), "User-Agent": "amends-operator"},
        trace_configs=list(traces),
        trust_env=False,
    )
