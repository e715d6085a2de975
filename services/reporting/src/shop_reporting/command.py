"""`python -m shop_reporting rebuild`: the command of the service, with what it builds a projection with."""

from collections.abc import Sequence
from dataclasses import dataclass

from amends_chassis.projections import command

from shop_reporting import parts
from shop_reporting.settings import Settings


@dataclass(slots=True)
class GapTotal:
    """Sums the gaps that a rebuild finds."""

    gaps: int = 0

    def add(self, new: int) -> None:
        """Count gaps."""
        self.gaps += new

    def remark(self) -> str:
        """Return what is said of them; nothing when there are none."""
        return f"; {self.gaps} gaps are being closed" if self.gaps else ""


def main(arguments: Sequence[str]) -> int:
    """Do what the arguments say and return the exit code."""
    settings, total = Settings(), GapTotal()
    return command.main(
        arguments,
        "shop_reporting",
        lambda: settings,
        lambda runtime: parts.rebuild(settings, runtime, total.add),
        total.remark,
    )
