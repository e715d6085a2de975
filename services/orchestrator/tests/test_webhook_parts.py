"""The parts of webhooks: their file, which addresses they may reach, what is signed, and how little is believed."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from datetime import timedelta
from typing import Any

import pytest
from amends_chassis.followed import RulesError
from amends_embedded.authority import Authority, spiffe
from amends_events.envelope import new_event_id
from amends_orchestrator.webhooks.addresses import NOT_PUBLIC, AddressRefusedError, Resolver, check, look_up
from amends_orchestrator.webhooks.client import AttemptOutcome, WebhookClient
from amends_orchestrator.webhooks.destinations import Destination, SecretError, parse
from amends_orchestrator.webhooks.signing import signature
from amends_testkit.receiver import HANG, Receiver, answer, new_secret, receiving, verifies, write_settings

WITHIN = timedelta(seconds=1)


def destination(**fields: Any) -> Destination:
    entry = {"name": "on-call", "url": "https://hooks.example.com/x", "secretFile": "/nowhere", **fields}
    [found] = parse(json.dumps({"webhooks": [entry]}), "webhooks.json").by_name.values()
    return found


def of(receiver: Receiver, **fields: Any) -> Destination:
    return destination(**receiver.entry(**fields))


async def attempt(to: Destination, body: bytes = b"{}", within: timedelta = WITHIN) -> AttemptOutcome:
    return await WebhookClient(within).attempt(to, new_event_id(), body)


# ------------------------------------------------------------------ the file


def test_a_destination_says_what_it_wants():
    found = destination(types=["RunParked"], namespaces=["shop"], sagas=["place-order"])
    assert found.wants("RunParked", "shop", "place-order")
    assert not found.wants("RunEnded", "shop", "place-order")
    assert not found.wants("RunParked", "trips", "place-order")
    assert not found.wants("RunParked", "shop", "restock")
    assert destination().wants("DefinitionChanged", "any", "")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"url": "ftp://hooks.example.com"}, "https://"),
        ({"url": "//hooks.example.com"}, "https://"),
        ({"url": "https:///path"}, "https://"),
        ({"url": "https://ada:pw@hooks.example.com"}, "neither a user"),
        ({"url": "https://hooks.example.com@127.0.0.1/"}, "neither a user"),
        ({"url": "https://hooks.example.com/#there"}, "fragment"),
        ({"url": "https://hooks.example.com:99999/"}, "no URL"),
        ({"url": "https://hooks.example.com:0/"}, "cannot be reached"),
        ({"url": "https://[fe80::1%25eth0]/"}, "cannot be reached"),
        ({"url": "https://hooks.example.com/a b"}, "printable"),
        ({"url": "https://hooks.example.com/\r\nX: y"}, "printable"),
        ({"url": "https://hooks.example.com\\@127.0.0.1/"}, "backslashes"),
        ({"url": "https://h\u00f6oks.example.com/"}, "ASCII"),
        ({"name": "On Call"}, "lower-case"),
        ({"types": ["RunWon"]}, "is none of"),
        ({"types": []}, "at least one"),
        ({"allowNetworks": ["10.0.0.1/8"]}, "must be a network"),
        ({"attempts": 0}, "from 1"),
        ({"attempts": True}, "from 1"),
        ({"insecure": True}, "is no field"),
        ({"secretFile": ""}, "secretFile"),
    ],
)
def test_what_makes_no_sense_is_refused_and_no_url_is_told(fields, said):
    with pytest.raises(RulesError, match=said) as refused:
        destination(**fields)
    assert "example.com" not in str(refused.value)


def test_two_destinations_of_one_name_are_refused():
    entry = {"name": "a", "url": "https://hooks.example.com", "secretFile": "/nowhere"}
    with pytest.raises(RulesError, match="the name of another one"):
        parse(json.dumps({"webhooks": [entry, entry]}), "webhooks.json")


@pytest.mark.parametrize("text", ["", "hush-hush", "whsec_", "whsec_" + base64.b64encode(b"short").decode(), "whsec_*"])
def test_a_secret_that_is_none_is_refused_and_never_told(tmp_path, text):
    path = tmp_path / "secret"
    path.write_text(text)
    with pytest.raises(SecretError) as refused:
        destination(secretFile=str(path)).secrets()
    assert not text or text == "whsec_" or text not in str(refused.value)


# ------------------------------------------------------------------ addresses

PRIVATE = [
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "127.0.0.1",
    "127.8.9.10",
    "0.0.0.0",
    "169.254.169.254",  # metadata of AWS, GCP, Azure
    "168.63.129.16",  # Azure's own
    "100.100.100.200",  # metadata of Alibaba
    "192.0.0.192",  # metadata of Oracle
    "100.64.0.1",
    "198.18.0.1",
    "224.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:10.0.0.1",
    "::127.0.0.1",
    "64:ff9b::7f00:1",  # by NAT64
    "2002:7f00:1::",  # by 6to4
    "2001:0:4136:e378:8000:63bf:80ff:fffe",  # by Teredo
    "fd00:ec2::254",  # metadata of AWS
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
    "2001:db8::1",
]


@pytest.mark.parametrize("address", PRIVATE)
def test_an_address_that_is_not_public_is_refused(address):
    with pytest.raises(AddressRefusedError) as refused:
        check([address], destination())
    assert address not in str(refused.value)


@pytest.mark.parametrize("host", ["2130706433", "0x7f000001", "0177.0.0.1", "127.1", "localhost", "127.0.0.1", "0"])
def test_however_this_machine_is_written_it_is_refused(host):
    with pytest.raises(AddressRefusedError):
        check(look_up(host, 443), destination(url=f"https://{host}/"))


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946", "172.32.0.1", "11.0.0.1"])
def test_a_public_address_is_reached(address):
    assert [str(place.address) for place in check([address], destination())] == [address]


def test_the_administrator_allows_a_network_and_nothing_beside_it():
    allowed = destination(allowNetworks=["10.1.0.0/16"])
    assert [str(place.address) for place in check(["10.1.2.3", "10.2.0.1"], allowed)] == ["10.1.2.3"]
    assert check(["::ffff:10.1.2.3"], allowed)
    for other in ("10.2.0.1", "127.0.0.1", "169.254.169.254"):
        with pytest.raises(AddressRefusedError):
            check([other], allowed)


def test_without_tls_only_this_machine_is_reached_and_only_when_it_is_allowed():
    url = {"url": "http://hooks.example.com/"}
    with pytest.raises(AddressRefusedError, match="https"):
        check(["93.184.216.34"], destination(**url))
    with pytest.raises(AddressRefusedError, match="not public"):
        check(["127.0.0.1"], destination(**url))
    assert check(["127.0.0.1"], destination(**url, allowNetworks=["127.0.0.0/8"]))
    with pytest.raises(AddressRefusedError, match="https"):
        check(["127.0.0.1", "10.0.0.1"], destination(**url, allowNetworks=["127.0.0.0/8", "10.0.0.0/8"]))


def test_each_network_on_the_list_is_one():
    assert all(network.version == 4 for network in NOT_PUBLIC)


async def test_the_address_that_was_checked_is_connected_to_whatever_the_name_says_afterwards(tmp_path):
    asked: list[str] = []
    answers = [["127.0.0.1"], ["10.0.0.1"]]

    def rebinding(host: str, port: int) -> list[str]:
        asked.append(host)
        return answers.pop(0)

    async with receiving(tmp_path) as receiver:
        client = WebhookClient(WITHIN, rebinding)
        to = of(receiver)
        assert (await client.attempt(to, new_event_id(), b"{}")).delivered
        assert asked == ["localhost"]  # once: nothing looks it up again to connect
        refused = await client.attempt(to, new_event_id(), b"{}")
        assert "no address that may be reached" in refused.detail
        assert len(receiver.received) == 1


async def test_a_resolver_that_hangs_holds_one_thread_and_no_other_destination(tmp_path):
    hanging, let_go = threading.Event(), threading.Event()

    def slow(host: str, port: int) -> list[str]:
        hanging.set()
        let_go.wait(30)
        return ["127.0.0.1"]

    resolver = Resolver(slow)
    try:
        before = threading.active_count()
        waits = [asyncio.create_task(resolver.resolve("localhost", 443)) for _ in range(20)]
        await asyncio.to_thread(hanging.wait, 10)
        assert threading.active_count() <= before + 2  # that of the look-up, and the one that waited for it here
        async with receiving(tmp_path) as receiver:
            assert (await attempt(of(receiver))).delivered
    finally:
        let_go.set()
    assert await asyncio.gather(*waits) == [["127.0.0.1"]] * 20


# ------------------------------------------------------------------ signatures


def test_a_signature_is_that_of_the_specification():
    """The vector of the reference implementation of Standard Webhooks."""
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'
    signed = signature([secret], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


async def test_while_a_secret_is_changed_both_are_good(tmp_path):
    async with receiving(tmp_path) as receiver:
        newer = new_secret()
        receiver.secret_file.write_text(f"{newer}\n{receiver.secret}\n")
        assert (await attempt(of(receiver), b'{"a":1}')).delivered
        [got] = receiver.received
        assert verifies(receiver.secret, got.headers, got.body)
        assert verifies(newer, got.headers, got.body)
        assert not verifies(new_secret(), got.headers, got.body)
        assert not verifies(newer, got.headers, got.body + b" ")
        assert not verifies(newer, {**got.headers, "webhook-timestamp": "1"}, got.body)


# ------------------------------------------------------------------ answers


async def test_a_redirect_is_not_followed(tmp_path):
    async with receiving(tmp_path) as receiver, receiving(tmp_path, "elsewhere") as elsewhere:
        for status in (301, 302, 303, 307, 308):
            receiver.script(answer(status, Location=f"https://localhost:{elsewhere.port}/"))
            outcome = await attempt(of(receiver))
            assert (outcome.delivered, outcome.detail) == (
                False,
                f"it answered {status}, and redirects are not followed",
            )
        assert elsewhere.received == []


@pytest.mark.parametrize(
    ("said", "detail"),
    [
        (b"SSH-2.0-OpenSSH_9.9\r\n", "did not answer in HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: " + b"x" * 100_000, "too long a head"),
        (b"", "did not answer in HTTP/1.1"),
        (b"HTTP/1.1 103 Early\r\n\r\n" * 3 + b"HTTP/1.1 200 OK\r\n\r\n", "it answered 200"),
        (answer(503, Retry_After="120"), "it answered 503"),
        (answer(410), "it answered 410"),
    ],
    ids=["no-http", "endless-head", "closed", "informational", "patience", "gone"],
)
async def test_whatever_is_answered_is_judged_and_nothing_of_it_is_kept(tmp_path, said, detail):
    async with receiving(tmp_path) as receiver:
        receiver.script(said)
        outcome = await attempt(of(receiver))
    assert detail in outcome.detail
    assert outcome.delivered == ("200" in outcome.detail)
    assert outcome.gone == ("410" in outcome.detail)
    assert outcome.pause == timedelta(seconds=120 if "503" in detail else 0)


async def test_an_endless_answer_is_not_read_to_its_end(tmp_path):
    async with receiving(tmp_path) as receiver:
        receiver.script(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n" + b"x" * 1_000_000)
        assert (await attempt(of(receiver))).delivered


async def test_who_does_not_answer_is_left_in_time(tmp_path):
    async with receiving(tmp_path) as receiver:
        receiver.script(HANG)
        outcome = await attempt(of(receiver), within=timedelta(milliseconds=100))
    assert outcome.detail == "there was no answer within 0.1 s"


async def test_a_certificate_of_another_authority_or_name_is_not_trusted(tmp_path):
    Authority.make().certify(tmp_path / "other", spiffe("test", "other"))
    async with receiving(tmp_path) as receiver:
        outcome = await attempt(of(receiver, caFile=str(tmp_path / "other" / "ca.crt")))
        assert "is not trusted" in outcome.detail
        outcome = await attempt(of(receiver, caFile=str(tmp_path / "nowhere.crt")))
        assert "caFile cannot be used" in outcome.detail
        url = f"https://hooks.example.com:{receiver.port}/"
        client = WebhookClient(WITHIN, lambda host, port: ["127.0.0.1"])
        outcome = await client.attempt(of(receiver, url=url), new_event_id(), b"{}")
        assert "is not trusted" in outcome.detail
        assert receiver.received == []


async def test_plain_http_reaches_this_machine_when_that_is_allowed(tmp_path):
    async with receiving(tmp_path, scheme="http") as receiver:
        assert (await attempt(of(receiver))).delivered
        refused = await attempt(of(receiver, allowNetworks=["10.0.0.0/8"]))
        assert "no address that may be reached" in refused.detail
        assert len(receiver.received) == 1


async def test_without_its_secret_nothing_is_sent(tmp_path):
    async with receiving(tmp_path) as receiver:
        receiver.secret_file.unlink()
        outcome = await attempt(of(receiver))
        assert outcome.detail == "the secret of on-call cannot be read: FileNotFoundError"
        assert receiver.received == []


def test_the_file_of_the_tests_is_one(tmp_path):
    path = write_settings(tmp_path / "webhooks.json", {"name": "a", "url": "https://a.example", "secretFile": "/s"})
    assert parse(path.read_text(), "x").wanted("RunParked", "shop", "s") == ("a",)
