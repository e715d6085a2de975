"""The commands of the demo: tell the stories, or leave the shop running, look at it and stop it."""

import argparse
import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from amends_embedded import Child, ChildDiedError, NatsError, PostgresError, ReportTimeoutError
from amends_embedded.process import is_running, until
from rich.console import Console
from rich.table import Table
from rich.text import Text

from amends_demo import audit, guide, logs, mail, manifests
from amends_demo.place import CHECKOUT, ShopFolder, ShopRunsAlreadyError
from amends_demo.stack import SERVICES, Stack, running

HOME = CHECKOUT / ".amends"
UP_TIMEOUT = timedelta(seconds=120)
DOWN_TIMEOUT = timedelta(seconds=60)
RESTART_PAUSE = timedelta(seconds=1)


def main(arguments: list[str]) -> int:
    """Run one command; return the exit code: 0 success, 1 a story or a command failed, 2 wrong use."""
    parser = argparse.ArgumentParser(prog="amends_demo", description="The shop on this machine.")
    parser.add_argument("command", choices=("demo", "up", "down", "status", "logs", "audit", "serve"))
    parser.add_argument("names", nargs="*", help="for logs: only of these processes")
    parser.add_argument("--place", type=Path, help="folder of data, logs and ports: .amends, for demo .amends/demo")
    parser.add_argument("--tls", action="store_true", help="for demo and up: every call is mutual TLS")
    options = parser.parse_intermixed_args(arguments)
    place, console = ShopFolder(options.place or HOME), Console(highlight=False)
    try:
        if options.command == "demo":
            return asyncio.run(demo(place if options.place else ShopFolder(HOME / "demo"), console, options.tls))
        if options.command == "serve":
            return asyncio.run(serve(place, options.tls))
        if options.command == "audit":
            return asyncio.run(audit.audit(audit.databases(place), console))
        if options.command == "logs":
            return logs.follow(place, options.names, console)
        if options.command == "up":
            return up(place, console, options.tls)
        return {"down": down, "status": status}[options.command](place, console)
    except ShopRunsAlreadyError:
        state = place.read_state()
        console.print(f"The shop runs already: {state.get('mode', 'it is starting')}, process {state.get('pid', '?')}.")
        console.print("`make status` shows it, `make logs` follows it, `make down` stops it.")
        return 1
    except audit.DatabasesUnknownError as error:
        console.print(str(error), markup=False)
        return 2
    except (ChildDiedError, ReportTimeoutError, NatsError, PostgresError, manifests.ApplyRefusedError) as error:
        console.print("[bold red]The shop did not start.[/]")
        console.print(str(error), markup=False)
        return 1
    except KeyboardInterrupt:
        return 130


async def demo(place: ShopFolder, console: Console, tls: bool = False) -> int:
    """Start a fresh shop, tell the stories, prove the books and stop everything. Return 1 if anything is broken.

    What a former demo left in the place is removed. The shop of `up` has a place of its own.
    """
    from amends_demo import playbill  # the stubs of every service, which the other commands do not need

    with place.held():
        place.clear()
        return await playbill.play(place, console, tls)


async def serve(place: ShopFolder, tls: bool = False) -> int:
    """Run a shop until SIGTERM: the background process of `up`. A process that dies is started again."""
    from amends_demo.shop import NAMESPACE, describe_articles, visiting

    stop = asyncio.Event()
    for order in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(order, stop.set)
    with place.held():
        async with running(place, tls=tls, whole=True) as stack:
            async with visiting(stack) as shop:
                targets = {service: stack.address(name) for name, service in SERVICES.items()}
                await manifests.apply(shop.definitions, targets, NAMESPACE)
                await manifests.watch(stack.address("monitor"), stack.certificates)
                await describe_articles(stack.address("catalog"), stack.certificates)
                await shop.stock_up()
            await mail.know_customer(stack.address("customers"), stack.certificates)
            stack.say_what_runs("up")
            place.report_started()
            await _keep(stack, stop)
    return 0


async def _keep(stack: Stack, stop: asyncio.Event) -> None:
    while not stop.is_set():
        if not stack.postgres.running:
            stack.say_what_runs("up")
            await asyncio.sleep(RESTART_PAUSE.total_seconds())
            # Not back in time: the next round tries again. The services wait for it and go on by themselves.
            with contextlib.suppress(PostgresError):
                await stack.postgres.restart()
            stack.say_what_runs("up")
        if not stack.nats.running:
            await asyncio.sleep(RESTART_PAUSE.total_seconds())
            with contextlib.suppress(NatsError):
                await stack.nats.restart()
            stack.say_what_runs("up")
        for name in stack.programs:
            if not stack.child(name).alive and not stop.is_set():
                await asyncio.sleep(RESTART_PAUSE.total_seconds())
                # Not ready in time, or dead again: the next round sees it.
                with contextlib.suppress(ChildDiedError, ReportTimeoutError):
                    await stack.start_one(name)
                stack.say_what_runs("up")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), 0.5)


def up(place: ShopFolder, console: Console, tls: bool = False) -> int:
    """Start a shop in the background and print what to try."""
    if place.running:
        raise ShopRunsAlreadyError
    with console.status("starting the shop"):
        child = Child.start(
            "shop",
            [sys.executable, "-m", "amends_demo", "serve", "--place", str(place.root), *(["--tls"] if tls else [])],
            log=place.logs / "shop.log",
            report=place.reports / "shop.json",
            environment={name: value for name, value in os.environ.items() if name.startswith("AMENDS_")},
            outlives_us=True,
        )
        asyncio.run(child.ready(UP_TIMEOUT))
    status(place, console)
    guide.show(place, console)
    return 0


def down(place: ShopFolder, console: Console) -> int:
    """Stop the shop that `up` (or `demo`) started."""
    if not place.running:
        console.print("Nothing runs here.")
        return 0
    pid = int(place.read_state().get("pid", 0))
    if not pid:
        console.print("The shop is just starting: wait a moment.")
        return 1
    with console.status("stopping the shop"):
        os.kill(pid, signal.SIGTERM)
        stopped = asyncio.run(until(lambda: not place.running, DOWN_TIMEOUT))
    console.print("Stopped." if stopped else f"Process {pid} did not stop; see {place.logs}.")
    return 0 if stopped else 1


def status(place: ShopFolder, console: Console) -> int:
    """Show what runs and where it listens, or that nothing does. Return 1 when a part of the shop is dead."""
    state = place.read_state()
    if not place.running or not state:
        console.print("The shop is starting." if place.running else "Nothing runs here. `make up` starts the shop.")
        return 0
    processes: dict[str, dict[str, Any]] = state["processes"]
    alive = {name: is_running(process["pid"]) for name, process in processes.items()}
    console.print(_table(processes, alive, console.width))
    since = f"{state['mode']} since {state['since']}, process {state['pid']}"
    console.print(f"{since}, logs in {place.logs}", soft_wrap=True)
    return 0 if all(alive.values()) else 1


def _table(processes: dict[str, dict[str, Any]], alive: dict[str, bool], width: int) -> Table:
    """Make a table that leaves out what does not fit, and never shortens an address."""
    rows = {
        name: {
            "PROCESS": name,
            "STATE": "[green]runs[/]" if alive[name] else "[red]dead[/]",
            "PID": str(process["pid"]),
            "ADDRESS": process["address"],
            "METRICS": process.get("metrics", ""),
            "DATABASE": process["database"].rpartition("/")[2],  # nothing of the password in front of it
        }
        for name, process in processes.items()
    }
    titles = ["PROCESS", "STATE", "PID", "ADDRESS", "METRICS", "DATABASE"]
    for dropped in ("DATABASE", "METRICS", "PID"):
        if _needed(titles, rows.values()) > width:
            titles.remove(dropped)
    table = Table(box=None, pad_edge=False)
    for title in titles:
        table.add_column(title, no_wrap=True, overflow="ignore")
    for row in rows.values():
        table.add_row(*(row[title] for title in titles))
    return table


def _needed(titles: list[str], rows: Iterable[Mapping[str, str]]) -> int:
    """Return how many columns of a terminal the columns of a table take."""
    widths = [max(len(title), *(Text.from_markup(row[title]).cell_len for row in rows)) for title in titles]
    return sum(widths) + 2 * (len(widths) - 1)
