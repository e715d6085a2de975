"""The type of a rule: a pure function from the model of a saga to findings.

Implemented in the modules beside this one, called by `checker`.
"""

from collections.abc import Callable, Iterable

from amends_saga.analysis import Model
from amends_saga.findings import Finding

Rule = Callable[[Model], Iterable[Finding]]
