"""The whole of `make demo`: a fresh shop, the seven stories, the proof. Called by `amends_demo.commands`."""

import asyncio
import os
import sys
import time

from rich.console import Console

from amends_demo import load, manifests, proof
from amends_demo.place import Place
from amends_demo.shop import NAMESPACE, Shop, visiting
from amends_demo.stack import SERVICES, Stack, running
from amends_demo.stories import STORIES, Scene
from amends_demo.telling import Telling

SETTLE_SECONDS = 20


async def play(place: Place, console: Console) -> int:
    """Returns 0 when every claim of every story holds."""
    began = time.monotonic()
    telling = Telling(console)
    console.print("Starting Postgres, two orchestrators, orders, inventory, payments and shipping ...")
    async with running(place) as stack:
        stack.say_what_runs("demo")
        async with visiting(stack) as shop:
            await _open(stack, shop)
            console.print(f"  ready after {time.monotonic() - began:.1f} s; addresses and logs are in {place.root}")
            scene = Scene(stack, shop, telling)
            for story in STORIES:
                with telling.surviving(story.__name__):
                    await story(scene)
            with telling.surviving("two hundred orders"):
                await load.two_hundred_orders(shop, telling)
            await _prove(stack, telling)
    return _conclude(telling, time.monotonic() - began)


async def _open(stack: Stack, shop: Shop) -> None:
    targets = {service: stack.address(name) for name, service in SERVICES.items()}
    await manifests.apply(shop.definitions, targets, NAMESPACE)
    await shop.stock_up()


async def _prove(stack: Stack, telling: Telling) -> None:
    telling.console.print()
    telling.console.rule("[bold]The books[/]", align="left")
    telling.console.print("read from the five databases, after everything", style="dim")
    end = time.monotonic() + SETTLE_SECONDS
    books = await proof.read(stack.databases)
    while not proof.settled(books) and time.monotonic() < end:
        await asyncio.sleep(0.2)
        books = await proof.read(stack.databases)
    proof.prove(books, telling)
    await _audit(stack, telling)


async def _audit(stack: Stack, telling: Telling) -> None:
    """Has `amends audit` check every run. URLs go by the environment: anybody may read a command line."""
    databases = " ".join(f"{service}={stack.databases[name]}" for name, service in SERVICES.items())
    told = {"AMENDS_DATABASE_URL": stack.databases["orchestrator"], "AMENDS_PARTICIPANTS": databases}
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
    telling.claim("amends audit finds every invariant kept by every run", process.returncode == 0, said)


def _conclude(telling: Telling, seconds: float) -> int:
    telling.console.print()
    if telling.broken:
        telling.console.print(f"[bold red]{len(telling.broken)} claims are broken[/] after {seconds:.0f} s:")
        for text in telling.broken:
            telling.console.print(f"  {text}", markup=False)
        return 1
    telling.console.print(f"[bold green]Every story ended as it should[/], in {seconds:.0f} s. Everything is stopped.")
    return 0
