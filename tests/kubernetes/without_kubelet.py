"""kubectl where no node has a kubelet: everything goes to kubectl itself, but a forwarded port leads to this machine.

Called as a program by the commands of test_plugin, as `kubectl`. FORWARDED is a JSON object of services to addresses.
"""

import json
import os
import socket
import sys
import threading
from contextlib import suppress


def main(arguments: list[str]) -> None:
    if "port-forward" not in arguments:
        os.execv(os.environ["KUBECTL"], ["kubectl", *arguments])
    words = [word for word in arguments if not word.startswith("--")]
    (namespace,) = [word.partition("=")[2] for word in arguments if word.startswith("--namespace=")]
    service, ports = words[1:]
    address = json.loads(os.environ["FORWARDED"])[f"{namespace}/{service.removeprefix('service/')}"]
    with socket.create_server(("127.0.0.1", int(ports.partition(":")[0] or 0))) as listener:
        print(f"Forwarding from 127.0.0.1:{listener.getsockname()[1]} -> {ports.rpartition(':')[2]}", flush=True)
        while True:
            near, _ = listener.accept()
            host, _, port = address.rpartition(":")
            far = socket.create_connection((host, int(port)))
            threading.Thread(target=pump, args=(near, far), daemon=True).start()
            threading.Thread(target=pump, args=(far, near), daemon=True).start()


def pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):  # either side may leave first
        while data := source.recv(65536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


if __name__ == "__main__":
    main(sys.argv[1:])
