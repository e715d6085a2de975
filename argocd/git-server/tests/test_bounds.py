"""What a caller of the git server cannot do: take its memory or its threads, or write what is no branch and no tag."""

import base64
import hashlib
import os
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import zlib
from pathlib import Path

import pytest
from amends_git_server.bounds import WAITING

from .conftest import HOOK, PUSH, READ

ZERO = "0" * 40
NOWHERE = "1" * 40


def pkt(line: bytes) -> bytes:
    return b"%04x" % (len(line) + 4) + line


def push(address: str, ref: str, new: str, pack: bytes, old: str = ZERO) -> str:
    """Push as git would, but anything; what the server reports."""
    body = pkt(f"{old} {new} {ref}\0report-status".encode()) + b"0000" + pack
    request = urllib.request.Request(f"http://{address}/amends.git/git-receive-pack", body)
    request.add_header("Content-Type", "application/x-git-receive-pack-request")
    request.add_header("Authorization", "Basic " + base64.b64encode(f"dev:{PUSH}".encode()).decode())
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.read().decode(errors="replace")
    except urllib.error.HTTPError as error:
        with error:
            return str(error.code)


def packed(*objects: bytes) -> bytes:
    data = b"PACK" + struct.pack(">II", 2, len(objects)) + b"".join(objects)
    return data + hashlib.sha1(data).digest()


def healthy(address: str) -> bool:
    with urllib.request.urlopen(f"http://{address}/healthz", timeout=10) as answer:
        return answer.read() == b"ok\n"


def test_refs_that_are_no_branches_and_no_tags_are_refused(clone):
    clone.commit("a.txt", "one")
    assert clone.push().returncode == 0
    for ref in ("refs/former/x", "refs/replace/x", "refs/notes/x", "refs/heads2/x"):
        refused = clone.push(f"main:{ref}")
        assert refused.returncode != 0
        assert "only branches and tags are taken" in refused.stderr
    assert clone.push("main:refs/tags/v1").returncode == 0


def test_a_branch_onto_what_is_not_there_is_refused_and_not_written(served, clone):
    clone.commit("a.txt", "one")
    assert clone.push().returncode == 0
    assert "ng refs/heads/x what it names is not in the pack" in push(served, "refs/heads/x", NOWHERE, packed())
    assert "refs/heads/x" not in clone.git("ls-remote", "kind").stdout


@pytest.mark.parametrize("service", ["git-receive-pack", "git%2Dreceive-pack", "%67it-receive%2dpack"])
def test_what_a_push_would_see_takes_the_token_to_push_however_it_is_written(served, service):
    request = urllib.request.Request(f"http://{served}/amends.git/info/refs?service={service}")
    request.add_header("Authorization", "Basic " + base64.b64encode(f"argocd:{READ}".encode()).decode())
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=10)
    with refused.value:
        assert refused.value.code == 401


def test_a_push_that_is_too_large_is_refused_before_it_is_read(served):
    with socket.create_connection(served.split(":"), timeout=10) as connection:
        token = base64.b64encode(f"dev:{PUSH}".encode()).decode()
        connection.sendall(
            b"POST /amends.git/git-receive-pack HTTP/1.1\r\nContent-Length: 200000000\r\n"
            b"Content-Type: application/x-git-receive-pack-request\r\n"
            b"Authorization: Basic " + token.encode() + b"\r\n\r\n"
        )
        assert b"413" in connection.recv(100)


@pytest.mark.parametrize(
    "said", [b"", b"GET /heal", b"GET /healthz HTTP/1.1\r\nX: "], ids=["nothing", "a word", "half"]
)
def test_connections_that_keep_silent_make_way(served, said):
    silent, before = [], threading.active_count()
    try:
        for _ in range(200):
            connection = socket.create_connection(served.split(":"), timeout=10)
            connection.sendall(said)
            silent.append(connection)
        began = time.monotonic()
        assert healthy(served)
        assert time.monotonic() - began < 5
        while threading.active_count() > before + WAITING:
            assert time.monotonic() - began < 10
            time.sleep(0.01)
    finally:
        for connection in silent:
            connection.close()


def test_a_pack_that_grows_in_memory_fails_alone(tmp_path):
    """300 MiB of zeros are 300 kB of pack; the process may have 96 MiB."""
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    for name, text in (("push", PUSH), ("read", READ), ("webhook", HOOK)):
        (secrets / name).write_text(text)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    told = {
        "AMENDS_GIT_SECRETS": str(secrets),
        "AMENDS_GIT_REPOSITORY": str(tmp_path / "amends.git"),
        "AMENDS_GIT_URL": "http://git.example/amends",
        "AMENDS_PORT": str(port),
    }
    command = [sys.executable, "-m", "amends_git_server"]
    process = subprocess.Popen(command, env=os.environ | told, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
    address = f"127.0.0.1:{port}"
    try:
        for _ in range(200):
            try:
                if healthy(address):
                    break
            except OSError:
                time.sleep(0.05)
        size = 300 * 1024 * 1024
        left, header = size >> 4, bytearray([(3 << 4) | (size & 15) | 128])
        while left:
            header.append((left & 127) | (128 if left > 127 else 0))
            left >>= 7
        deflate = zlib.compressobj(9)
        zeros = b"".join(deflate.compress(bytes(1 << 20)) for _ in range(300)) + deflate.flush()
        said = push(address, "refs/heads/x", NOWHERE, packed(bytes(header) + zeros))
        assert "ok refs/heads/x" not in said
        status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
        peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))  # in kB
        assert peak < 128 * 1024
        assert healthy(address)
    finally:
        process.kill()
        process.wait()
