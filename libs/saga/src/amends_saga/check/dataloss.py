"""Rules about data that CEL would lose silently."""

from amends_saga.analysis import Model
from amends_saga.check.rule import Rule


def required_input(model: Model) -> tuple[str, ...]:
    return ()


RULES: tuple[Rule, ...] = ()
