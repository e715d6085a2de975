"""A read-through cache of versioned values in a service's own Redis, or any server that speaks its protocol."""

from amends_cache.cache import Cache, OriginBusyError, Timing
from amends_cache.value import Versioned

__all__ = ["Cache", "OriginBusyError", "Timing", "Versioned"]
