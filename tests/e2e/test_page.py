"""The page in a real browser: charts move, an alert appears and resolves, nothing goes to the console."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest

from headwater.net import free_port

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]

RULES = """
[[window]]
name = "one_second"
size_s = 1
every_field = ["count", "mean", "min", "max"]

[[alert]]
name = "too_hot"
window = "one_second"
field = "temperature"
aggregate = "mean"
fire_above = 80
clear_below = 60
for_s = 1
severity = "warning"
summary = "Pump too hot."
runs = "edge"
"""

CONFIG = """
role = "edge"
node = "page-test"
data_dir = "data"
rules = ["rules.toml"]
[kafka]
listen = "127.0.0.1:{kafka}"
[mqtt]
listen = "127.0.0.1:{mqtt}"
[marks]
every_ms = 250
lateness_ms = 300
[page]
listen = "127.0.0.1:{page}"
"""


class Shed:
    """A node and a pump whose temperature the test sets."""

    def __init__(self, folder: Path) -> None:
        self.ports = {"kafka": free_port(), "mqtt": free_port(), "page": free_port()}
        self.url = f"http://127.0.0.1:{self.ports['page']}/"
        self.temperature = 40.0
        (folder / "rules.toml").write_text(RULES)
        (folder / "headwater.toml").write_text(CONFIG.format(**self.ports))
        self.log = (folder / "node.log").open("w+")
        command = [str(Path(sys.executable).with_name("headwater")), "run", "--config", str(folder / "headwater.toml")]
        self.node = subprocess.Popen(command, stderr=self.log)
        self._stop = threading.Event()
        self._pump = threading.Thread(target=self._publish)

    def start(self) -> None:
        wait_for(lambda: fetch(self.url + "readyz")[0] == 200, "the page to be ready")
        self._pump.start()

    def _publish(self) -> None:
        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="pump1")
        client.connect("127.0.0.1", self.ports["mqtt"])
        client.loop_start()
        while not self._stop.wait(0.1):
            client.publish("shed/pump1", json.dumps({"temperature": self.temperature, "flow": 3.5}), qos=1)
        client.disconnect()
        client.loop_stop()

    def stop(self) -> None:
        self._stop.set()
        if self._pump.is_alive():
            self._pump.join(10)
        self.node.terminate()
        self.node.wait(20)
        self.log.close()


def fetch(url: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except OSError:
        return 0, b""


def wait_for(condition: Callable[[], Any], what: str, *, seconds: float = 30) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if result := condition():
            return result
        time.sleep(0.1)  # the node is another process: its state is asked for, not slept for
    pytest.fail(f"waited {seconds} s for {what}")


@pytest.fixture
def shed(tmp_path: Path) -> Iterator[Shed]:
    shed = Shed(tmp_path)
    try:
        shed.start()
        yield shed
    finally:
        shed.stop()


@pytest.fixture
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.mark.peer("chromium")
def test_charts_move_and_an_alert_appears_and_resolves(shed: Shed, browser: Any) -> None:
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    told: list[str] = []
    page.on("console", lambda message: told.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: told.append(f"error: {error}"))
    page.goto(shed.url)

    chart = page.locator('.chart[data-field="temperature"]')
    chart.locator("svg").first.wait_for(timeout=20_000)
    first = chart.get_attribute("data-points")
    page.wait_for_function(
        "first => document.querySelector('.chart[data-field=temperature]').dataset.points > first", arg=first
    )
    # raw values and windows: two lines
    page.wait_for_function(
        "() => document.querySelectorAll('.chart[data-field=temperature] .scatterlayer .trace').length >= 2"
    )
    assert page.locator("#devices tr").count() == 1
    assert "page-test/shed/pump1" in page.locator("#devices").inner_text()
    assert page.locator("#state").inner_text() == "good"
    assert page.locator("#nodes").inner_text().startswith("page-test")
    assert page.locator("#alerts li").count() == 0

    shed.temperature = 95.0
    page.locator('#alerts li[data-state="firing"]').wait_for(timeout=20_000)
    metrics = fetch(shed.url + "metrics")[1].decode()
    assert 'headwater_alert_state{alert_instance="page-test/shed/pump1",rule="too_hot",state="firing"} 1.0' in metrics
    shed.temperature = 40.0
    page.locator('#alerts li[data-state="resolved"]').wait_for(timeout=20_000)
    assert told == []


@pytest.mark.peer("chromium")
def test_phone_keyboard_and_dark(shed: Shed, browser: Any) -> None:
    phone = browser.new_context(
        viewport={"width": 390, "height": 800}, has_touch=True, is_mobile=True, color_scheme="dark"
    )
    page = phone.new_page()
    page.goto(shed.url)
    page.locator('.chart[data-field="temperature"] svg').first.wait_for(timeout=20_000)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page scrolls sideways on a phone"
    dark = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert dark == "rgb(16, 24, 29)"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "device"
    page.keyboard.press("ArrowDown")
    page.wait_for_function("() => document.getElementById('device').value === 'page-test/shed/pump1'")


@pytest.mark.peer("chromium")
def test_the_history_is_chosen_by_device_aggregate_and_span(shed: Shed, browser: Any) -> None:
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    told: list[str] = []
    page.on("console", lambda message: told.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: told.append(f"error: {error}"))
    page.goto(shed.url)
    page.locator("#past-chart svg").first.wait_for(timeout=30_000)
    assert page.locator("#past-device").input_value() == "page-test/shed/pump1"
    page.select_option("#past-field", "temperature")
    page.wait_for_function("() => document.getElementById('past-chart').dataset.asked === 'temperature mean 24'")
    page.select_option("#past-aggregate", "one_second|max")
    page.select_option("#past-span", "4392")
    page.wait_for_function("() => document.getElementById('past-chart').dataset.asked === 'temperature max 4392'")
    assert int(page.locator("#past-chart").get_attribute("data-points")) >= 1
    assert told == []

    series = json.loads(fetch(shed.url + "api/v1/history/series")[1])["series"]
    assert {(one["rule"], one["field"]) for one in series} == {("one_second", "temperature"), ("one_second", "flow")}
    query = "device=page-test/shed/pump1&rule=one_second&field=temperature&aggregate=mean&from=1&to=9999999999999"
    points = json.loads(fetch(f"{shed.url}api/v1/history?{query}")[1])["points"]
    assert points[-1][2] == 40.0
