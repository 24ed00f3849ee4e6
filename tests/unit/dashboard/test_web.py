"""The page over HTTP: who is let in, what it serves, what Prometheus and a supervisor see."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from headwater.dashboard.auth import COOKIE, host_name, load_token
from headwater.dashboard.model import PageModel
from headwater.dashboard.web import create_app
from headwater.disk import ForgetfulDisk
from headwater.errors import UserError

STATUS: dict[str, Any] = {
    "node": "edge", "version": "0.1", "state": "good", "problems": [], "now_ms": 10_000,
    "central": {
        "state": "up", "backlog_records": 3, "backlog_bytes": 300, "last_success_ms": 9_000,
        "transactions": 4, "aborted": 1, "fenced": 1,
    },
    "ingest": {
        "received": 5, "stored": 4, "dead_letters": 1,
        "sources": [{"id": "mqtt:t1", "connected": True, "last_ms": 8_000}],
    },
    "disk": {"free_bytes": 10, "total_bytes": 20},
    "log": {"topics": {"readings": {"partitions": [{"end": 7}]}}},
}  # fmt: skip
TOKEN = "a-token-of-fair-length"


def app(status: dict[str, Any] | None = STATUS, token: str | None = None) -> Starlette:
    return create_app(status=lambda: status, model=make_model(), token=token)


def make_model() -> PageModel:
    return PageModel(history_s=60, devices_max=10, series_max=10)


def ask(application: Starlette, method: str, path: str, *, host: str = "127.0.0.1:8080", **more: Any) -> httpx.Response:
    async def once() -> httpx.Response:
        transport = httpx.ASGITransport(app=application)
        async with httpx.AsyncClient(transport=transport, base_url=f"http://{host}") as client:
            return await client.request(method, path, **more)

    return asyncio.run(once())


@pytest.mark.parametrize(
    "path", ["/", "/static/page.js", "/static/page.css", "/static/plotly.min.js", "/api/v1/snapshot"]
)
def test_loopback_needs_no_token(path: str) -> None:
    answer = ask(app(), "GET", path)
    assert answer.status_code == 200
    assert "default-src 'self'" in answer.headers["content-security-policy"]


def test_another_host_name_on_loopback_is_refused() -> None:
    assert ask(app(), "GET", "/api/v1/snapshot", host="evil.example").status_code == 421


def test_unknown_static_file() -> None:
    assert ask(app(), "GET", "/static/../auth.py").status_code == 404
    assert ask(app(), "GET", "/static/settings.py").status_code == 404


def test_a_browser_that_has_the_file_is_told_so() -> None:
    application = app()
    tag = ask(application, "GET", "/static/page.js").headers["etag"]
    assert ask(application, "GET", "/static/page.js", headers={"If-None-Match": tag}).status_code == 304


def test_off_loopback_the_token_is_needed() -> None:
    application = app(token=TOKEN)
    assert ask(application, "GET", "/api/v1/snapshot", host="pi:8080").status_code == 401
    assert ask(application, "GET", "/metrics", host="pi:8080").status_code == 401
    wrong = {"Authorization": "Bearer nonsense"}
    assert ask(application, "GET", "/metrics", host="pi:8080", headers=wrong).status_code == 401
    right = {"Authorization": f"Bearer {TOKEN}"}
    assert ask(application, "GET", "/metrics", host="pi:8080", headers=right).status_code == 200
    assert ask(application, "GET", "/healthz", host="pi:8080").status_code == 200


def test_a_browser_is_sent_to_sign_in_and_gets_a_cookie(monkeypatch: pytest.MonkeyPatch) -> None:
    application = app(token=TOKEN)
    page = ask(application, "GET", "/", host="pi:8080", headers={"Accept": "text/html"})
    assert (page.status_code, page.headers["location"]) == (303, "/login?next=/")

    async def at_once(_seconds: float) -> None:
        return

    monkeypatch.setattr("headwater.dashboard.web.asyncio.sleep", at_once)
    assert ask(application, "POST", "/login", host="pi:8080", data={"token": "guess"}).status_code == 401
    signed_in = ask(application, "POST", "/login", host="pi:8080", data={"token": TOKEN})
    cookie = signed_in.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert TOKEN not in cookie
    value = cookie.partition("=")[2].partition(";")[0]
    again = ask(application, "GET", "/", host="pi:8080", headers={"Cookie": f"{COOKIE}={value}"})
    assert again.status_code == 200


def test_signing_in_reads_no_more_than_a_token_needs() -> None:
    taken = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal taken
        while True:
            taken += 1024
            yield b"x" * 1024

    answer = ask(app(token=TOKEN), "POST", "/login", host="pi:8080", content=endless())
    assert answer.status_code == 413
    assert taken < 64 * 1024


def test_ready_tells_strangers_nothing_of_devices() -> None:
    degraded = STATUS | {"state": "degraded", "problems": ["mqtt:secret-device is silent"]}
    answer = ask(app(status=degraded, token=TOKEN), "GET", "/readyz", host="pi:8080")
    assert answer.json() == {"ready": True}


def test_metrics() -> None:
    text = ask(app(), "GET", "/metrics").text
    for line in (
        "headwater_up 1.0",
        "headwater_backlog_records 3.0",
        "headwater_last_success_timestamp_seconds 9.0",
        'headwater_source_age_seconds{source="mqtt:t1"} 2.0',
        "headwater_ingest_dead_letters_total 1.0",
        'headwater_log_records_total{partition="0",topic="readings"} 7.0',
    ):
        assert line in text, line


def test_metrics_of_alerts() -> None:
    model = make_model()
    model.alerts["hot/edge/t1"] = {"rule": "hot", "instance": "edge/t1", "state": "firing", "change": 1}
    text = ask(create_app(status=lambda: STATUS, model=model, token=None), "GET", "/metrics").text
    assert 'headwater_alert_state{alert_instance="edge/t1",rule="hot",state="firing"} 1.0' in text
    assert 'headwater_alert_state{alert_instance="edge/t1",rule="hot",state="resolved"} 0.0' in text


def test_metrics_of_the_nodes_that_report_here() -> None:
    model = make_model()
    model.nodes["edge"] = {"node": "edge", "mark_seen_ms": 4_000, "live_ms": 2_000, "backlog_records": 7, "change": 1}
    text = ask(create_app(status=lambda: STATUS, model=model, token=None), "GET", "/metrics").text
    assert 'headwater_node_mark_age_seconds{node="edge"} 6.0' in text
    assert 'headwater_node_complete_timestamp_seconds{node="edge"} 2.0' in text
    assert 'headwater_node_backlog_records{node="edge"} 7.0' in text


def test_a_core_that_does_not_answer() -> None:
    application = app(status=None)
    assert "headwater_up 0.0" in ask(application, "GET", "/metrics").text
    assert ask(application, "GET", "/healthz").status_code == 503
    assert ask(application, "GET", "/readyz").status_code == 503


def test_a_degraded_node_is_still_ready() -> None:
    degraded = STATUS | {"state": "degraded", "problems": ["link down"]}
    answer = ask(app(status=degraded), "GET", "/readyz")
    assert (answer.status_code, answer.json()) == (200, {"ready": True, "problems": ["link down"]})


def test_the_token_is_made_once_and_private(tmp_path: Path) -> None:
    path = str(tmp_path / "page-token")
    token, made = load_token(path)
    assert made
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert load_token(path) == (token, False)


@pytest.mark.parametrize("left", [b"", b"\n", bytes(33)])
def test_a_token_file_that_a_power_cut_left_empty_gets_a_new_token(tmp_path: Path, left: bytes) -> None:
    path = tmp_path / "page-token"
    path.write_bytes(left)
    token, made = load_token(str(path))
    assert made
    assert len(token) > 16
    assert path.read_text() == token + "\n"
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_token_is_durable_before_it_is_shown_and_a_bad_sector_gets_a_new_one() -> None:
    disk = ForgetfulDisk()
    token, _ = load_token("/d/page-token", disk)
    disk.power_cut()
    assert load_token("/d/page-token", disk) == (token, False)
    disk.bad_files.add("/d/page-token")
    other, made = load_token("/d/page-token", disk)
    assert made
    assert other != token
    disk.fail_next["replace_file"] = OSError(28, "No space left on device")
    disk.remove("/d/page-token")
    with pytest.raises(UserError, match=r"cannot be written to /d/page-token: No space"):
        load_token("/d/page-token", disk)


def test_a_short_token_is_refused(tmp_path: Path) -> None:
    (tmp_path / "page-token").write_text("short\n")
    with pytest.raises(UserError, match="shorter than 16"):
        load_token(str(tmp_path / "page-token"))


@pytest.mark.parametrize("text", ["correct horse battery staple\n", "c" * 41 + "\r\n"])
def test_a_token_of_ones_own_is_taken_as_it_is(tmp_path: Path, text: str) -> None:
    (tmp_path / "page-token").write_text(text)
    assert load_token(str(tmp_path / "page-token")) == (text.strip(), False)


@pytest.mark.parametrize("bit", range(0, 8 * 41, 7))
def test_a_token_that_was_made_and_has_a_flipped_bit_is_none(tmp_path: Path, bit: int) -> None:
    path = tmp_path / "page-token"
    load_token(str(path))
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)
    with pytest.raises(UserError, match="cannot be used"):
        load_token(str(path))


def test_a_token_whose_last_digit_became_a_space_is_none(tmp_path: Path) -> None:
    path = tmp_path / "page-token"
    path.write_text("c" * 39 + " \n")
    with pytest.raises(UserError, match="cannot be used"):
        load_token(str(path))


def test_a_token_that_was_cut_short_is_none(tmp_path: Path) -> None:
    path = tmp_path / "page-token"
    token, _ = load_token(str(path))
    path.write_text(token[:30])
    with pytest.raises(UserError, match="cut short"):
        load_token(str(path))


@pytest.mark.parametrize(
    ("header", "name"), [("localhost:80", "localhost"), ("[::1]:80", "[::1]"), ("[::1]", "[::1]"), ("pi", "pi")]
)
def test_host_name(header: str, name: str) -> None:
    assert host_name(header) == name


class Past:
    """A history of one series."""

    def series(self) -> list[dict[str, Any]]:
        return [{"device": "n/a", "rule": "w", "field": "t", "aggregates": ["mean"], "newest_ms": 20}]

    def read(self, *asked: Any) -> list[Any]:
        return [[10, 20, 1.5, None, None, 3, True]] if asked == ("n/a", "w", "t", "mean", 5, 30) else []


def test_the_history_is_asked_for_one_aggregate_and_span() -> None:
    kept = create_app(status=lambda: STATUS, model=make_model(), token=None, history=Past())
    assert ask(kept, "GET", "/api/v1/history/series").json()["series"][0]["device"] == "n/a"
    query = "/api/v1/history?device=n/a&rule=w&field=t&aggregate=mean&from=5&to=30"
    assert ask(kept, "GET", query).json()["points"] == [[10, 20, 1.5, None, None, 3, True]]
    assert ask(app(), "GET", query).json()["points"] == []  # a node that keeps none
    assert ask(app(), "GET", "/api/v1/history/series").json() == {"series": []}


@pytest.mark.parametrize(
    ("query", "what"),
    [
        ("device=n/a", "missing: rule, field, aggregate, from, to"),
        ("device=a&rule=w&field=t&aggregate=mean&from=9&to=5", "from before to"),
        ("device=a&rule=w&field=t&aggregate=mean&from=x&to=5", "from and to are times in ms"),
    ],
)
def test_a_question_about_the_past_that_lacks_something(query: str, what: str) -> None:
    answer = ask(app(), "GET", f"/api/v1/history?{query}")
    assert answer.status_code == 400
    assert what in answer.json()["error"]


def test_the_history_needs_the_token_too() -> None:
    assert ask(app(token=TOKEN), "GET", "/api/v1/history/series", host="node:8080").status_code in (401, 303)
