"""Stands in for kubectl: answers from a JSON file, forwards ports to this machine, and notes how it was called.

Called as a program by the tests of `kubectl amends`. What a cluster adds, the login and the way into the pod, is
kubectl's own business; kubectl itself is used where an API server is enough.
"""

import contextlib
import json
import os
import socket
import sys
import threading
from pathlib import Path
from typing import Any

STATE = Path(os.environ["FAKE_KUBECTL"])


def main(arguments: list[str]) -> None:
    state = json.loads(STATE.read_text())
    with STATE.with_suffix(".calls").open("a") as calls:
        calls.write(json.dumps(arguments) + "\n")
    words = [word for word in arguments if not word.startswith("--")]
    if words[0] == "config":
        print(state["namespace"], end="")
    elif words[:2] == ["get", "services"]:
        print(json.dumps({"items": state["services"]}))
    elif words[0] == "get" and "/".join(words[1:]) in state["objects"]:
        print(json.dumps(state["objects"]["/".join(words[1:])]))
    elif words[0] == "get":
        sys.exit(f'Error from server (NotFound): {words[1]} "{words[2]}" not found')
    elif words[0] == "port-forward":
        forward(state["targets"], words[1:])
    else:
        sys.exit(f'error: unknown command "{words[0]}"')


def forward(targets: dict[str, str], words: list[str]) -> None:
    """Takes connections until the other side is gone, and then ends, as kubectl does."""
    service, ports = words
    mine, _, _ = ports.partition(":")
    if service not in targets:
        sys.exit(f"Error from server (NotFound): {service} not found")
    with socket.create_server(("127.0.0.1", int(mine or 0))) as listener:
        print(f"Forwarding from 127.0.0.1:{listener.getsockname()[1]} -> 50051", flush=True)
        while True:
            near, _ = listener.accept()
            host, _, port = targets[service].rpartition(":")
            try:
                far = socket.create_connection((host, int(port)))
            except OSError:
                sys.exit("error: lost connection to pod")
            left = threading.Event()
            threading.Thread(target=pump, args=(near, far, left.set), daemon=True).start()
            threading.Thread(target=pump, args=(far, near, lambda left=left: lost(left)), daemon=True).start()


def pump(source: Any, target: Any, end: Any) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    end()
    target.close()


def lost(left: threading.Event) -> None:
    """The pod's side has ended; unless this side had left before, that is the end of kubectl."""
    if not left.is_set():
        os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
