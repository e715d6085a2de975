"""Puts the gateway together. Called by `__main__` and by tests."""

from amends_chassis.service import Runtime

from shop_gateway.application import application
from shop_gateway.gateway import Gateway, Streams
from shop_gateway.kept import KeptAnswers
from shop_gateway.limits import RateLimits
from shop_gateway.server import WebServer
from shop_gateway.settings import Settings
from shop_gateway.upstreams import upstreams


async def assemble(settings: Settings, runtime: Runtime) -> None:
    """Put the service's parts together, and open its port."""
    if runtime.tokens is None:
        raise ValueError("the gateway needs AMENDS_TOKEN_ISSUER and AMENDS_TOKEN_AUDIENCE to know who asks")
    gateway = Gateway(
        settings,
        runtime,
        upstreams(settings, runtime),
        runtime.tokens,
        RateLimits(settings.rate_per_address, settings.rate_per_account),
        Streams(settings.most_streams),
        KeptAnswers(),
    )
    server = WebServer(application(gateway), settings)
    await server.listen()
    runtime.attach("http", server)
