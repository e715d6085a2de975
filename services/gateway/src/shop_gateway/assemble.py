"""Puts the gateway together. Called by `__main__` and by tests."""

from amends_chassis.service import Runtime

from shop_gateway.application import application
from shop_gateway.gateway import Gateway
from shop_gateway.server import WebServer
from shop_gateway.settings import Settings
from shop_gateway.upstreams import upstreams


async def assemble(settings: Settings, runtime: Runtime) -> None:
    """Put the service's parts together, and open its port."""
    gateway = Gateway(settings, runtime, upstreams(settings, runtime))
    server = WebServer(application(gateway), settings)
    await server.listen()
    runtime.attach("http", server)
