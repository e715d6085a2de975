"""The client against a real server, whatever that answers."""

import ssl
from datetime import timedelta

import pytest
from aiosmtpd.smtp import AuthResult
from amends_embedded.authority import Authority
from shop_notifications.domain import ServerReply
from shop_notifications.smtp import Security, SmtpClient, SmtpServer, SmtpUnreachableError, smtp_server

from .mail_server import (
    HANG_UP,
    SAY_NOTHING,
    TAKE_AND_HANG_UP,
    TAKE_AND_SAY_NOTHING,
    MailServer,
    mail_server,
)

CONTENT = b"Subject: Hello\r\n\r\n.a line with a point\r\n"


def client(server: MailServer, timeout: float = 5, security: Security = Security.NONE) -> SmtpClient:
    place = SmtpServer("127.0.0.1", server.port, security)
    return SmtpClient(lambda: place, "shop.test", timedelta(seconds=timeout))


async def sent(one: SmtpClient):
    if not one.connected:
        await one.connect()
    return await one.transmit("shop@shop.test", "ada@example.org", CONTENT)


async def test_a_connection_is_kept_for_all_messages():
    async with mail_server() as server:
        one = client(server)
        for _ in range(3):
            assert (await sent(one)).reply is ServerReply.TAKEN
        await one.close()
    assert server.greeted == ["shop.test"]
    assert [mail.get_content() for mail in server.mails] == [".a line with a point\r\n"] * 3


@pytest.mark.parametrize("command", ["MAIL", "RCPT", "DATA"])
@pytest.mark.parametrize(
    ("answer", "reply"), [("451 come later", ServerReply.LATER), ("550 no such user", ServerReply.REFUSED)]
)
async def test_after_an_answer_the_connection_is_good_for_the_next_message(command, answer, reply):
    async with mail_server() as server:
        server.plan(command, answer)
        one = client(server)
        came = await sent(one)
        assert (came.reply, came.answer) == (reply, answer)
        assert one.connected
        assert (await sent(one)).reply is ServerReply.TAKEN
        one.drop()
    assert len(server.greeted) == 1


@pytest.mark.parametrize("command", ["MAIL", "RCPT", "DATA"])
async def test_421_ends_the_connection_and_the_message_is_for_later(command):
    async with mail_server() as server:
        server.plan(command, "421 we are closing")
        one = client(server)
        assert (await sent(one)).reply is ServerReply.LATER
        assert not one.connected


@pytest.mark.parametrize(
    ("command", "answer", "reply", "taken"),
    [
        ("RCPT", HANG_UP, ServerReply.LATER, 0),
        ("RCPT", SAY_NOTHING, ServerReply.LATER, 0),
        ("DATA", HANG_UP, ServerReply.UNKNOWN, 0),
        ("DATA", TAKE_AND_HANG_UP, ServerReply.UNKNOWN, 1),
        ("DATA", TAKE_AND_SAY_NOTHING, ServerReply.UNKNOWN, 1),
        ("DATA", "299 what is this", ServerReply.UNKNOWN, 0),
    ],
)
async def test_without_an_answer_to_the_content_nobody_knows(command, answer, reply, taken):
    async with mail_server() as server:
        server.plan(command, answer)
        one = client(server, timeout=1)
        assert (await sent(one)).reply is reply
        assert not one.connected
        assert len(server.mails) >= taken


async def test_a_server_that_is_not_there_is_told_from_one_that_refuses():
    async with mail_server() as server:
        pass
    with pytest.raises(SmtpUnreachableError, match=f"127.0.0.1:{server.port}"):
        await client(server).connect()


async def test_encryption_that_is_asked_for_and_not_offered_means_no_connection():
    async with mail_server() as server:
        with pytest.raises(SmtpUnreachableError):
            await client(server, security=Security.STARTTLS).connect()
        with pytest.raises(SmtpUnreachableError):
            await client(server, timeout=0.5, security=Security.TLS).connect()
    assert server.mails == []


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("smtp://mail.test:1025", SmtpServer("mail.test", 1025, Security.NONE)),
        ("smtp://mail.test", SmtpServer("mail.test", 25, Security.NONE)),
        ("smtps://mail.test", SmtpServer("mail.test", 465, Security.TLS)),
        (
            "smtp+starttls://shop:p%40ss%2Fword@mail.test",
            SmtpServer("mail.test", 587, Security.STARTTLS, "shop", "p@ss/word"),
        ),
    ],
)
def test_a_server_is_named_by_a_url(url, server):
    assert smtp_server(url) == server


@pytest.mark.parametrize(
    "url",
    [
        "mail.test:25",
        "http://mail.test",
        "smtp://",
        "smtp://mail.test:none",
        "smtp://mail.test/inbox",
        "smtps://shop@mail.test",
        "smtp://shop:password@mail.test",
    ],
)
def test_a_url_that_names_none_is_refused_without_repeating_it(url):
    with pytest.raises(ValueError, match="AMENDS_SMTP must be") as refused:
        smtp_server(url)
    assert "password@" not in str(refused.value)


@pytest.fixture
def tls(tmp_path, monkeypatch) -> ssl.SSLContext:
    """What a server with a certificate for localhost shows; its authority is trusted by whoever looks for one."""
    authority = Authority.make()
    authority.certify(tmp_path, "spiffe://amends.local/ns/shop/sa/mail", ("localhost",))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)  # of a server
    context.load_cert_chain(tmp_path / "tls.crt", tmp_path / "tls.key")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.crt"))
    return context


def log_in(server, session, envelope, mechanism, credentials) -> AuthResult:
    return AuthResult(success=(credentials.login, credentials.password) == (b"shop", b"secret"), handled=False)


def with_password(port: int, password: str) -> SmtpClient:
    place = SmtpServer("localhost", port, Security.STARTTLS, "shop", password)
    return SmtpClient(lambda: place, "shop.test", timedelta(seconds=5))


async def test_a_password_goes_over_an_encrypted_connection(tls):
    async with mail_server(tls_context=tls, require_starttls=True, auth_required=True, authenticator=log_in) as server:
        one = with_password(server.port, "secret")
        assert (await sent(one)).reply is ServerReply.TAKEN
        one.drop()
        with pytest.raises(SmtpUnreachableError, match="535"):
            await with_password(server.port, "wrong").connect()


async def test_a_server_whose_certificate_is_not_trusted_or_of_another_name_gets_nothing(tls, monkeypatch):
    async with mail_server(tls_context=tls) as server:
        other = SmtpServer("127.0.0.1", server.port, Security.STARTTLS)
        with pytest.raises(SmtpUnreachableError):
            await SmtpClient(lambda: other, "shop.test", timedelta(seconds=5)).connect()
        monkeypatch.delenv("SSL_CERT_FILE")
        named = SmtpServer("localhost", server.port, Security.STARTTLS)
        with pytest.raises(SmtpUnreachableError):
            await SmtpClient(lambda: named, "shop.test", timedelta(seconds=5)).connect()
    assert server.mails == []
