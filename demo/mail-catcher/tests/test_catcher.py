"""The catcher as its users meet it: mails go in by SMTP, and are seen over HTTP."""

import asyncio
import json
import smtplib
import urllib.error
import urllib.request
from email.message import EmailMessage

import pytest
import pytest_asyncio
from amends_mail_catcher.inbox import Inbox
from amends_mail_catcher.serving import CatcherSettings, catching

NASTY = "<script>alert(1)</script> & \"quoted\" 'text' 茶"


@pytest_asyncio.fixture(loop_scope="session")
async def catcher():
    async with catching(CatcherSettings()) as addresses:
        yield addresses


def mail(subject: str = "Hello", text: str = "Some text.", html: str | None = None) -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "shop@example.org", "ada@example.org", subject
    message["Message-ID"] = "<1@example.org>"
    message.set_content(text)
    if html is not None:
        message.add_alternative(html, subtype="html")
    return message


async def send(catcher, *messages: EmailMessage) -> None:
    def work() -> None:
        host, _, port = catcher.smtp.rpartition(":")
        with smtplib.SMTP(host, int(port), timeout=10) as client:
            for message in messages:
                client.send_message(message)

    await asyncio.to_thread(work)


async def get(catcher, path: str, method: str = "GET"):
    def work():
        request = urllib.request.Request(f"http://{catcher.http}{path}", method=method)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, answer.headers, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers, error.read().decode()

    return await asyncio.to_thread(work)


async def test_what_was_sent_is_in_the_inbox_the_newest_first(catcher):
    assert "No mail has come yet" in (await get(catcher, "/"))[2]
    await send(catcher, mail("First"), mail("Second"))
    _, headers, text = await get(catcher, "/mails.json")
    assert headers["Content-Type"].startswith("application/json")
    found = json.loads(text)
    assert [one["subject"] for one in found] == ["Second", "First"]
    assert found[0]["to"] == ["ada@example.org"]
    assert found[0]["messageId"] == "<1@example.org>"
    assert found[0]["text"].strip() == "Some text."
    page = (await get(catcher, "/"))[2]
    assert page.index("Second") < page.index("First")


async def test_nothing_in_a_mail_becomes_part_of_the_page(catcher):
    await send(catcher, mail(NASTY, NASTY, f"<p>{NASTY}</p><img src=x onerror=alert(1)>"))
    (number,) = [one["number"] for one in json.loads((await get(catcher, "/mails.json"))[2])]
    for path in ("/", f"/mail/{number}"):
        _, headers, page = await get(catcher, path)
        assert "<script" not in page
        assert "<img" not in page
        assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; &quot;quoted&quot;" in page
        assert "茶" in page
        assert headers["Content-Security-Policy"].startswith("default-src 'none'")


@pytest.mark.parametrize("path", ["/mail/77", "/mail/x", "/mail/" + "9" * 5000, "/mail/", "/etc/passwd"])
async def test_what_is_not_there_is_not_found(catcher, path):
    assert (await get(catcher, path))[0] == 404


async def test_the_page_is_for_looking(catcher):
    assert (await get(catcher, "/", "POST"))[0] == 405
    assert (await get(catcher, "/healthz"))[::2] == (200, "ok\n")


async def test_a_mail_that_cannot_be_read_is_shown_as_far_as_it_can(catcher):
    def work() -> None:
        host, _, port = catcher.smtp.rpartition(":")
        with smtplib.SMTP(host, int(port), timeout=10) as client:
            broken = b"Subject: =?nothing?q?=ff?=\r\nContent-Type: text/plain; charset=no-such\r\n\r\n\xff\xfe\r\n"
            client.sendmail("", ["ada@example.org"], broken)

    await asyncio.to_thread(work)
    (one,) = json.loads((await get(catcher, "/mails.json"))[2])
    assert (await get(catcher, f"/mail/{one['number']}"))[0] == 200


async def test_one_setting_listens_to_both_families():
    async with catching(CatcherSettings(host="::")) as addresses:
        port = int(addresses.smtp.rpartition(":")[2])
        for host in ("127.0.0.1", "::1"):
            _, writer = await asyncio.open_connection(host, port)
            writer.close()
            await writer.wait_closed()


def test_the_oldest_make_room():
    inbox = Inbox(kept=2)
    for number in range(3):
        inbox.add("", (), f"Subject: {number}\r\n\r\n".encode())
    assert [one.header("Subject") for one in inbox.mails()] == ["2", "1"]
    assert inbox.mail(1) is None
