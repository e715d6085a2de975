"""Where a process can be made to end or to stand still, and the list of the places it came by.

None of this is in a program that is shipped: the processes of this suite wrap the ports of the real orchestrator and
of the real barrier from outside (`orchestrator_process`, `participants_process`). A control file says what to do where;
the driver writes it while the process runs. A place is taken once: then the process is dead, or was told so.
"""

import os
import signal
from pathlib import Path

CRASH, STOP = "crash", "stop"
EXIT_CODE = 137


class Points:
    """The places of this process. `control` holds `crash LABEL` or `stop LABEL`; `record` gets a line for each."""

    def __init__(self, control: Path, record: Path) -> None:
        self._control = os.open(control, os.O_RDONLY | os.O_CREAT, 0o600)
        self._record = os.open(record, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._stopped = ""

    @classmethod
    def of_environment(cls) -> "Points":
        """Those that the driver gave this process."""
        return cls(Path(os.environ["FAULTS_CONTROL"]), Path(os.environ["FAULTS_RECORD"]))

    def reached(self, label: str) -> None:
        """Note that the process is at this place; end it, hold it, or let it go on, as was ordered."""
        order, _, where = os.pread(self._control, 4096, 0).decode().partition(" ")
        os.write(self._record, f"{label}\n".encode())
        if where != label:
            return
        if order == CRASH:
            os._exit(EXIT_CODE)
        if order == STOP and self._stopped != label:
            self._stopped = label
            os.kill(os.getpid(), signal.SIGSTOP)
