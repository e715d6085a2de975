"""The whole shop as processes, and browsers to go there."""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from amends_demo import manifests
from amends_demo.place import ShopFolder
from amends_demo.shop import NAMESPACE, describe_articles, visiting
from amends_demo.stack import SERVICES, Stack, running

from .browser import CHROMIUM, DRIVER, Browser
from .processes import read_from_the_replica

NO_BROWSER = "needs chromium and chromedriver on PATH: apt-get install chromium chromium-driver"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker("browser")
            if not (CHROMIUM and DRIVER):
                item.add_marker(pytest.mark.skip(reason=NO_BROWSER))


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """The running shop, with articles, stock and carriers."""
    place = ShopFolder(tmp_path_factory.mktemp("shop"))
    with place.held():
        async with running(place, whole=True) as stack:
            async with visiting(stack) as shop:
                targets = {service: stack.address(name) for name, service in SERVICES.items()}
                await manifests.apply(shop.definitions, targets, NAMESPACE)
                await describe_articles(stack.address("catalog"), stack.certificates)
                await shop.stock_up()
            await read_from_the_replica(stack)
            yield stack


@pytest.fixture
def browse(stack: Stack) -> Iterator[Callable[..., Browser]]:
    """Opens browsers at the shop."""
    opened: list[Browser] = []

    def browse(*, width: int = 1280, script: bool = True) -> Browser:
        opened.append(Browser(stack.shop, width=width, script=script))
        return opened[-1]

    yield browse
    for browser in opened:
        browser.close()
