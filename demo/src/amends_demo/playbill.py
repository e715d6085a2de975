"""The whole of `make demo`: a fresh shop, the stories, the proof. Called by `amends_demo.commands`."""

import asyncio
import os
import sys
import time
from collections import Counter

from rich.console import Console

from amends_demo import books, laws, load, mail, manifests, report
from amends_demo.books import COMPENSATED, COMPLETED, Books
from amends_demo.chat import listening
from amends_demo.place import ShopFolder
from amends_demo.shop import NAMESPACE, Shop, describe_articles, visiting
from amends_demo.stack import SERVICES, Stack, running
from amends_demo.stories import STORIES, Scene
from amends_demo.telling import Telling

SETTLE_SECONDS = 20


async def play(place: ShopFolder, console: Console, tls: bool = False) -> int:
    """Play all stories; return 0 when every claim of every story holds."""
    began = time.monotonic()
    telling = Telling(console)
    console.print("Starting Postgres, a mail server, two orchestrators, the monitor and the services ...")
    async with (
        listening(place.root) as (chat, webhooks),
        running(place, tls=tls, whole=True, webhooks=webhooks) as stack,
    ):
        stack.say_what_runs("demo")
        async with visiting(stack) as shop:
            await _open(stack, shop)
            console.print(f"  ready after {time.monotonic() - began:.1f} s; addresses and logs are in {place.root}")
            scene = Scene(stack, shop, telling, chat)
            for story in STORIES:
                with telling.surviving(story.__name__):
                    await story(scene)
            with telling.surviving("two hundred orders"):
                await load.two_hundred_orders(shop, telling)
            with telling.surviving("the report adds up"):
                await report.the_report_adds_up(stack, shop, telling)
            await _prove(stack, telling)
    return _conclude(telling, time.monotonic() - began)


async def _open(stack: Stack, shop: Shop) -> None:
    targets = {service: stack.address(name) for name, service in SERVICES.items()}
    await manifests.apply(shop.definitions, targets, NAMESPACE)
    await manifests.watch(stack.address("monitor"), stack.certificates)
    await describe_articles(stack.address("catalog"), stack.certificates)
    await shop.stock_up()
    await mail.know_customer(stack.address("customers"), stack.certificates)


async def _prove(stack: Stack, telling: Telling) -> None:
    telling.console.print()
    telling.console.rule("[bold]The books[/]", align="left")
    telling.console.print("read from the six databases, after everything", style="dim")
    end = time.monotonic() + SETTLE_SECONDS
    found = await books.read(stack.databases)
    while not found.is_settled and time.monotonic() < end:
        await asyncio.sleep(0.2)
        found = await books.read(stack.databases)
    prove(found, telling)
    await _audit(stack, telling)


def prove(found: Books, telling: Telling) -> None:
    """State every law of the shop, and that everything has come to its end."""
    for law in laws.LAWS:
        broken = list(law.broken(found))
        telling.claim(law.holds, not broken, [law.name, *broken[:5]])
    unended = {order: state for order, state in found.runs.items() if state not in (COMPLETED, COMPENSATED)}
    telling.claim(
        "every run has ended, and there is one for each orchestrated order", _are_orders(found, unended), unended
    )
    states = Counter(order.state for order in found.orders.values())
    telling.claim(
        f"{states['confirmed']} orders are confirmed, {states['rejected']} rejected, none is pending",
        not states["pending"],
        states,
    )


def _are_orders(found: Books, unended: dict[str, int]) -> bool:
    orchestrated = {name for name, order in found.orders.items() if order.fulfilment == "orchestrated"}
    return not unended and found.runs.keys() == orchestrated


async def _audit(stack: Stack, telling: Telling) -> None:
    """Let `amends audit` check runs and events. URLs go by the environment: anybody may read a command line."""
    others = {name: url for name, url in stack.databases.items() if name not in (*SERVICES, "orchestrator")}
    told = {
        "AMENDS_DATABASE_URL": stack.databases["orchestrator"],
        "AMENDS_PARTICIPANTS": " ".join(f"{service}={stack.databases[name]}" for name, service in SERVICES.items()),
        "AMENDS_SERVICE_DATABASES": " ".join(f"{name}={url}" for name, url in others.items()),
        "AMENDS_BROKER": stack.nats.url,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "amends_cli", "audit"),
        env=os.environ | told,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said = (await process.communicate())[0].decode(errors="replace")
    telling.say("  $ amends audit")
    for line in said.splitlines():
        telling.say(f"  {line}")
    telling.claim("amends audit finds that all runs and events kept what was promised", process.returncode == 0, said)


def _conclude(telling: Telling, seconds: float) -> int:
    telling.console.print()
    if telling.broken:
        telling.console.print(f"[bold red]{len(telling.broken)} claims are broken[/] after {seconds:.0f} s:")
        for text in telling.broken:
            telling.console.print(f"  {text}", markup=False)
        return 1
    telling.console.print(f"[bold green]Every story ended as it should[/], in {seconds:.0f} s. Everything is stopped.")
    return 0
