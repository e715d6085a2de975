"""`python -m amends_orchestrator`: one replica, set by its environment."""

from amends_chassis.service import run

from amends_orchestrator.assemble import assemble
from amends_orchestrator.settings import Settings

if __name__ == "__main__":
    run(Settings(), assemble)
