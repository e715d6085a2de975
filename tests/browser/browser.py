"""A browser as a person uses it: by what is to be read on the page, not by how the page is made."""

import importlib.resources
import os
import shutil
from pathlib import Path
from typing import Any

from selenium.common.exceptions import TimeoutException
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By
from selenium.webdriver.support.expected_conditions import staleness_of
from selenium.webdriver.support.wait import WebDriverWait

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
PATIENCE = 20
"""Seconds for what a page is waited for."""
AXE = (importlib.resources.files("selenium_axe_python") / "axe-core" / "axe.min.js").read_text()
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
NO_NETWORK = ("disable-background-networking", "disable-component-update", "no-first-run", "disable-sync")
_LABELLED = (
    "//*[self::input or self::select]"
    "[@id = //label[normalize-space()={0}]/@for or @aria-label={0} or @id = //label[starts-with(., {0})]/@for]"
)


class Browser:
    """A window of Chromium."""

    def __init__(self, shop: str, *, width: int, script: bool) -> None:
        """Open a window of `width` CSS pixels at the address of a shop, with or without script on its pages."""
        self.shop = shop
        self.width = width
        self._pictures = os.environ.get("AMENDS_SCREENSHOTS")
        self._script = script
        self.driver = Chrome(_options(), ChromeService(DRIVER))
        window = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", window)
        self.driver.set_page_load_timeout(PATIENCE)
        self._let_pages_script(script)

    def open(self, path: str) -> None:
        """Go to a page by its address."""
        self.driver.get(self.shop + path)

    def follow(self, text: str) -> None:
        """Follow a link."""
        self._press(By.PARTIAL_LINK_TEXT, text)

    def press(self, text: str) -> None:
        """Press a button, by what it says or is called."""
        self._press(By.XPATH, f"//button[normalize-space()='{text}' or @aria-label='{text}']")

    def fill(self, **fields: str) -> None:
        """Type into fields, which are named by their labels with `_` for spaces."""
        for name, text in fields.items():
            label = name.replace("_", " ")
            found = self.driver.find_element(By.XPATH, _LABELLED.format(f"'{label}'"))
            found.clear()
            found.send_keys(text)

    def choose(self, label: str) -> None:
        """Check a box, or the other way round."""
        self.driver.find_element(By.XPATH, _LABELLED.format(f"'{label}'")).click()

    @property
    def heading(self) -> str:
        """What the page is about."""
        return self._read("h1")[0]

    @property
    def text(self) -> str:
        """What is to be read on the page."""
        return " ".join(self._read("main"))

    @property
    def missing(self) -> list[str]:
        """What the page says about what it does not have."""
        return self._read(".missing")

    def see(self, text: str) -> None:
        """Wait until something is to be read; the page may change by itself meanwhile."""

        def is_seen(_: Any) -> bool:
            return text in self.text

        try:
            WebDriverWait(self.driver, PATIENCE, 0.1).until(is_seen)
        except TimeoutException:
            raise AssertionError(f"{text!r} does not appear in:\n{self.text}") from None

    def looks_good(self, *, but: tuple[str, ...] = ()) -> None:
        """Fail on what axe finds wrong with the page, and on a page that is wider than the window.

        `but` names rules of axe that do not hold for this page, for a reason that stands beside the call.
        """
        wide = self.driver.execute_script("return document.documentElement.scrollWidth")
        assert wide <= self.width, f"{self.heading}: {wide} pixels wide in a window of {self.width}"
        options = {"runOnly": RULES, "rules": {rule: {"enabled": False} for rule in but}}
        self._let_pages_script(True)  # for axe, which is one; those of the page are not run later
        found = self.driver.execute_async_script(
            AXE + "; axe.run(document, arguments[0]).then(arguments[arguments.length - 1])", options
        )
        self._let_pages_script(self._script)
        assert found["passes"], "axe has looked at nothing"
        wrong = [(one["id"], one["help"], [node["html"] for node in one["nodes"]]) for one in found["violations"]]
        assert wrong == [], self.heading

    def complaints(self) -> list[str]:
        """What the browser itself found wrong since the last time: refused scripts and styles, files not found."""
        return [one["message"] for one in self.driver.get_log("browser")]

    def picture(self, name: str, *, at: int) -> None:
        """Keep a picture of the whole page for the documentation, when somebody has asked for pictures.

        It is taken in the window that is `at` pixels wide.
        """
        if not self._pictures or at != self.width:
            return
        height = int(self.driver.execute_script("return document.documentElement.scrollHeight"))
        window = {"width": self.width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", window)
        self.driver.save_screenshot(str(Path(self._pictures) / f"{name}.png"))

    def close(self) -> None:
        """Close the window."""
        self.driver.quit()

    def _let_pages_script(self, may: bool) -> None:
        self.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not may})

    def _read(self, selector: str) -> list[str]:
        """Return the texts of elements, all of one moment: the page may load itself again."""
        script = "return Array.from(document.querySelectorAll(arguments[0]), one => one.innerText)"
        return [str(text) for text in self.driver.execute_script(script, selector)]

    def _press(self, by: str, what: str) -> None:
        """Click something that leads to a page, and wait until the page that it was on is gone."""
        before = self.driver.find_element(By.TAG_NAME, "html")
        self.driver.find_element(by, what).click()
        WebDriverWait(self.driver, PATIENCE, 0.05).until(staleness_of(before))


def _options() -> ChromeOptions:
    options = ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for argument in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", *NO_NETWORK):
        options.add_argument(f"--{argument}")
    options.add_argument("--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return options
