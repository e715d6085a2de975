"""The OpenAPI document: its examples work, links lead everywhere, and no request breaks what it says."""

import asyncio
import os
import re
import sys
from pathlib import Path
from typing import Any

import httpx
import openapi
import pytest
from amends_testkit.waiting import eventually
from jsonschema import Draft202012Validator
from shop_gateway.rest import OPERATIONS
from shop_gateway.rest.document import document
from shop_gateway.rest.operation import HAL

from .front import PASSWORD, Front

SCHEMATHESIS = Path(__file__).with_name("schemathesis.toml")
SPECIFIED: dict[str, Any] = {one["operationId"]: one for path in document()["paths"].values() for one in path.values()}
LAST = ("signOutEverywhere", "closeAccount")
"""After these whoever asks is nobody."""
OF_ONES_OWN = {"refresh", "signOut", "getOrder", "followOrder", "cancelOrder"}
"""What needs something that only an answer has: there can be no example of it."""


def conforms(answer: httpx.Response, operation: str) -> None:
    """An answer is one of those that the document has for an operation, and fits its schema."""
    specified = SPECIFIED[operation]["responses"][str(answer.status_code)]
    if "$ref" in specified:
        specified = document()["components"]["responses"][specified["$ref"].rpartition("/")[2]]
    content = specified.get("content", {})
    if answer.content:
        schema = content[answer.headers["content-type"].partition(";")[0]].get("schema")
        if schema is not None:
            Draft202012Validator({**schema, "components": document()["components"]}).validate(answer.json())


async def ready(client: httpx.AsyncClient, headers: dict[str, str]) -> None:
    """Return when all services have heard of an account, and orders of the articles."""

    async def look() -> bool:
        known = [await client.get(f"/v1/me/{what}", headers=headers) for what in ("profile", "consents")]
        return all(answer.status_code == 200 for answer in known)

    await eventually(look, what="the account is known everywhere")


def request_of(operation: Any) -> dict[str, Any]:
    """The request that the examples of an operation make."""
    specified = SPECIFIED[operation.name]
    path = operation.path
    headers: dict[str, str] = {}
    query: dict[str, Any] = {}
    for one in specified["parameters"]:
        if "example" not in one:
            assert not one["required"], f"{operation.name} lacks an example of {one['name']}"
        elif one["in"] == "path":
            path = path.replace(f"{{{one['name']}}}", one["example"])
        else:
            {"header": headers, "query": query}[one["in"]][one["name"]] = one["example"]
    body = specified.get("requestBody", {}).get("content", {}).get("application/json", {}).get("example")
    return {"method": operation.method, "url": path, "headers": headers, "params": query, "json": body}


def test_the_document_is_what_the_operations_and_the_contracts_say() -> None:
    assert openapi.DOCUMENT.read_text(encoding="utf-8") == openapi.document(), "run `make openapi`"


def test_every_operation_and_every_field_has_words() -> None:
    assert all(one["summary"] for one in SPECIFIED.values())
    assert [one.name for one in OPERATIONS if one.rpc and not SPECIFIED[one.name]["description"]] == []
    for name, schema in document()["components"]["schemas"].items():
        wordless = [
            one for one, of in schema.get("properties", {}).items() if one != "_links" and not of["description"]
        ]
        assert wordless == [], name


async def test_every_example_in_the_document_does_what_it_is_for(client, front: Front) -> None:
    ada = {"emailAddress": "ada@example.com", "password": PASSWORD}
    assert (await client.post("/v1/accounts", json=ada)).status_code == 202
    token = (await client.post("/v1/sessions", json=ada)).json()["accessToken"]
    me = {"authorization": f"Bearer {token}"}
    await ready(client, me)
    shown = [one for one in OPERATIONS if one.name not in OF_ONES_OWN]
    for operation in sorted(shown, key=lambda one: LAST.index(one.name) if one.name in LAST else -1):
        request = request_of(operation)
        if operation.secured:
            request["headers"] |= me
        answer = await client.request(**{name: value for name, value in request.items() if value not in (None, {})})
        assert answer.is_success, (operation.name, answer.text)
        conforms(answer, operation.name)


async def test_a_crawler_that_knows_only_the_entry_finds_everything_that_can_be_read(client, front: Front) -> None:
    me = await front.person(client)
    await ready(client, me)
    basket = {"lines": [{"sku": "mug", "quantity": 1}], "cardToken": "tok_visa", "address": ADDRESS}
    seen: dict[str, str] = {}
    due = ["/v1/"]
    while due:
        address = due.pop()
        operation = operation_of(address)
        if operation in seen.values():
            continue
        answer = await client.get(address, headers=me)
        assert answer.status_code == 200, (address, answer.text)
        conforms(answer, operation)
        seen[address] = operation
        if not answer.headers["content-type"].startswith(HAL):
            continue
        for link in links_in(answer.json()):
            if link.get("method", "GET") == "GET":
                due.append(re.sub(r"\{\?.*?\}", "", link["href"]))
            elif link == {"href": "/v1/orders", "method": "POST"} and basket:
                placed = await client.post(link["href"], json=basket, headers=me | {"idempotency-key": "crawler"})
                basket = {}
                due += [one["href"] for one in links_in(placed.json())]
    readable = {one.name for one in OPERATIONS if one.method == "GET"}
    assert readable - set(seen.values()) == set()


ADDRESS = {"recipient": "Ada", "street": "Rosenweg 3", "city": "Berlin", "postalCode": "10115", "country": "DE"}


def links_in(document: Any) -> list[dict[str, Any]]:
    """All links of a document and of what is in it."""
    if isinstance(document, list):
        return [link for one in document for link in links_in(one)]
    if not isinstance(document, dict):
        return []
    own = list(document.get("_links", {}).values())
    return own + [link for name, one in document.items() if name != "_links" for link in links_in(one)]


def operation_of(address: str) -> str:
    """The operation that reads an address."""
    path = address.partition("?")[0]
    for one in OPERATIONS:
        if one.method == "GET" and re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", one.path), path):
            return one.name
    raise AssertionError(address)


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_schemathesis_finds_nothing(client, front: Front, tmp_path: Path) -> None:
    me = await front.person(client, "a password that no example has")
    await ready(client, me)
    command = [str(Path(sys.executable).with_name("schemathesis")), f"--config-file={SCHEMATHESIS}", "run"]
    process = await asyncio.create_subprocess_exec(
        *command,
        f"{client.base_url}/v1/openapi.json",
        f"--header=Authorization: {me['authorization']}",
        cwd=tmp_path,  # where it keeps what it found
        env=os.environ | {"SCHEMATHESIS_HOOKS": "schemathesis_formats", "PYTHONPATH": str(SCHEMATHESIS.parent)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    told, _ = await process.communicate()
    assert process.returncode == 0, told.decode()
    assert "Failures:" not in told.decode()
    assert f"{len(OPERATIONS)} passed" in told.decode()


PLACES_AN_ORDER = """
import sys
from shop_client import AuthenticatedClient, Client
from shop_client.api.default import get_order, place_order, sign_in, sign_up
from shop_client.models import Address, Line, PlaceOrder, SignIn, SignUp

known = {"email_address": "generated@example.com", "password": "correct horse battery"}
stranger = Client(base_url=sys.argv[1])
assert sign_up.sync_detailed(client=stranger, body=SignUp(**known)).status_code == 202
tokens = sign_in.sync(client=stranger, body=SignIn(**known))
client = AuthenticatedClient(base_url=sys.argv[1], token=tokens.access_token)
address = Address(recipient="Ada", street="Rosenweg 3", city="Berlin", postal_code="10115", country="DE")
order = PlaceOrder(lines=[Line(sku="mug", quantity=1)], card_token="tok_visa", address=address)
placed = place_order.sync(client=client, body=order, idempotency_key="generated", prefer="wait=8")
print(get_order.sync(placed.order_id, client=client).state)
"""
"""What somebody writes who has a client generated."""


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_a_client_that_is_generated_from_the_document_places_an_order(
    client, front: Front, tmp_path: Path
) -> None:
    python = tmp_path / "venv" / "bin" / "python"

    async def run(*command: str | Path) -> str:
        process = await asyncio.create_subprocess_exec(
            *map(str, command), cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        told, _ = await process.communicate()
        assert process.returncode == 0, told.decode()
        return told.decode()

    # It needs another typer than the command line of this repository, so it is installed apart.
    await run(sys.executable, "-m", "venv", tmp_path / "venv")
    await run(python, "-m", "pip", "install", "--quiet", "openapi-python-client==0.29.1")
    (tmp_path / "config.yaml").write_text("package_name_override: shop_client\nproject_name_override: shop-client\n")
    generate = (
        "generate",
        f"--path={openapi.DOCUMENT}",
        "--config=config.yaml",
        "--meta=none",
        "--output-path=shop_client",
    )
    await run(python.with_name("openapi-python-client"), *generate)
    (tmp_path / "place.py").write_text(PLACES_AN_ORDER)
    assert "ORDER_STATE_CONFIRMED" in await run(python, "place.py", str(client.base_url).rstrip("/"))
