"""What the routes of the gateway share. Made once, by `assemble.py`; REST and pages are given it."""

from dataclasses import dataclass

from amends_chassis.service import Runtime

from shop_gateway.settings import Settings
from shop_gateway.upstreams import Upstreams


@dataclass(frozen=True, slots=True)
class Gateway:
    """The running gateway, as its routes see it."""

    settings: Settings
    runtime: Runtime
    upstreams: Upstreams
