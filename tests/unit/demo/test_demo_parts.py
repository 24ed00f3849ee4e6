from __future__ import annotations

import asyncio
import io
import os
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from headwater.clock import ManualClock
from headwater.demo import display
from headwater.demo.cast import Cast
from headwater.demo.children import Child
from headwater.demo.conductor import Conductor, Options
from headwater.demo.figures import HAPPENINGS_MAX, Figures, end_of
from headwater.demo.layout import Layout, Ports, free_ports
from headwater.demo.main import parse_options, run_directory
from headwater.demo.story import STORY, STORY_S, Plot
from headwater.errors import UserError
from simulators.options import parse_duration


@pytest.mark.parametrize(("text", "seconds"), [("60s", 60), ("90", 90), ("1.5m", 90), ("12h", 43_200), ("2min", 120)])
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-1s", "0", "5 d", "1h30"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(UserError, match="is no duration"):
        parse_duration(text)


def test_a_report_on_half_a_story_is_refused(tmp_path: Path) -> None:
    report = str(tmp_path / "r.json")
    with pytest.raises(UserError, match="half a story"):
        parse_options(["--for", "59s", "--report", report])
    options, keep, plain = parse_options(["--for", "60s", "--report", report, "--seed", "4"])
    assert (options.seconds, options.report, options.seed, keep, plain) == (60.0, Path(report), 4, None, False)
    assert parse_options(["--for", "10s"])[0].seconds == 10.0
    assert parse_options([])[0].seconds is None


def test_a_comparison_is_with_a_broker_that_it_knows(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse_options(["--versus", "mosquitto"])[0].versus == "mosquitto"
    with pytest.raises(SystemExit):
        parse_options(["--versus", "emqx"])
    assert "mosquitto" in capsys.readouterr().err


def test_a_report_without_a_folder_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no folder"):
        parse_options(["--for", "60s", "--report", str(tmp_path / "no" / "r.json")])


def test_the_folder_of_a_run(tmp_path: Path) -> None:
    with run_directory(None) as made:
        (made / "file").write_text("x")
    assert not made.exists()
    with run_directory(tmp_path / "kept") as kept:
        (kept / "file").write_text("x")
    assert (kept / "file").exists()
    with pytest.raises(UserError, match="is not empty"), run_directory(kept):
        pass


def test_each_beat_happens_once_and_in_order_however_coarse_the_ticks() -> None:
    for step in (0.25, 7.0, 100.0):
        plot, seen, now = Plot(), [], 0.0
        while not plot.over:
            now += step
            seen += plot.due(now)
        assert seen == [beat.action for beat in STORY]
    assert all(beat.at_s < STORY_S for beat in STORY)
    short = Plot(10.0)
    assert short.due(100.0) == ["overheat on"]
    assert short.over


def test_the_gearbox_is_hot_over_two_whole_windows_and_cool_before_the_end() -> None:
    at = {beat.action: beat.at_s for beat in STORY}
    assert at["overheat off"] - at["overheat on"] >= 2 * 10 + 10 + 5
    assert STORY_S - at["overheat off"] >= 10 + 8


def test_ports_all_differ() -> None:
    assert len(set(free_ports())) == len(Ports._fields)


def test_the_configurations_are_toml_with_every_port(tmp_path: Path) -> None:
    ports = Ports(*range(20_001, 20_007))
    layout = Layout(tmp_path, ports)
    layout.write()
    edge = tomllib.loads(layout.edge_config.read_text())
    central = tomllib.loads(layout.central_config.read_text())
    assert edge["central"]["bootstrap_servers"] == central["kafka"]["advertised"] == f"127.0.0.1:{ports.proxy}"
    used = layout.edge_config.read_text() + layout.central_config.read_text()
    assert all(str(port) in used for port in ports)
    assert any(f"http://127.0.0.1:{ports.edge_page}/" in line for line in layout.introduction())


def status(**central: Any) -> dict[str, Any]:
    partitions = [{"start": 0, "end": 40}, {"start": 0, "end": 2}]
    return {"state": "good", "log": {"topics": {"readings": {"partitions": partitions}}}, "central": central or None}


def test_figures_never_fall_when_a_node_restarts() -> None:
    figures = Figures()
    figures.take_farm({"sent": 10, "acknowledged": 9, "resent": 1, "garbage_sent": 2})
    figures.take_edge(status(state="up", backlog_records=2, backlog_bytes=99))
    assert (figures.stored, figures.replicated, figures.link, figures.edge) == (42, 40, "up", "good")
    figures.take_edge(status(state="down", backlog_records=12, backlog_bytes=999))
    assert (figures.replicated, figures.backlog_records) == (40, 12)
    figures.take_edge(None)
    figures.take_farm({"sent": 1})
    assert (figures.edge, figures.stored, figures.sent) == ("down", 42, 10)
    assert end_of({}, "readings") == 0


def test_the_screen_is_bounded_and_plain_lines_tell_everything() -> None:
    figures = Figures(
        seconds=12.5, sent=1200, acknowledged=1199, backlog_bytes=3_500_000, alerts={"turbine-07": "firing"}
    )
    for number in range(3 * HAPPENINGS_MAX):
        figures.happened(f"event {number}")
    assert len(figures.happenings) == HAPPENINGS_MAX
    line = display.plain_line(figures)
    for word in ("12.5 s", "sent 1,200", "acknowledged 1,199", "3.5 MB", "turbine-07 firing"):
        assert word in line


def screen() -> tuple[display.Panelled, io.StringIO]:
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=100, height=40)
    return display.Panelled(["the pages"], console), shown


def test_the_panel_shows_at_once_what_happened_and_why_a_node_is_not_good() -> None:
    panel, shown = screen()
    figures = Figures()
    figures.take_edge({"state": "degraded", "problems": ["mqtt:x: again and again", "second"]})
    panel.happened(figures, "the farm stops")
    assert "the farm stops" in shown.getvalue()
    assert "! edge: mqtt:x: again and again" in shown.getvalue()
    assert "second" not in shown.getvalue()
    figures.take_edge({"state": "good", "problems": []})
    assert figures.problems == []
    panel.close()


def test_after_the_panel_s_end_there_are_lines_alone() -> None:
    panel, shown = screen()
    figures = Figures(acknowledged=7)
    panel.happened(figures, "the farm stops")
    panel.close()
    at = len(shown.getvalue())
    panel.show(figures)
    panel.line("7 readings were acknowledged")
    panel.close()
    assert shown.getvalue()[at:] == "7 readings were acknowledged\n"
    assert "\x1b[2K" in shown.getvalue()[:at]  # the panel is erased
    assert "acknowledged 7" in shown.getvalue()[:at]


class Silent(Cast):
    """A cast that only notes what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.may_start = asyncio.Event()

    def cut(self) -> None:
        self.asked.append("cut")

    def garbage(self) -> None:
        self.asked.append("garbage")

    async def kill_edge(self) -> None:
        self.asked.append("kill")
        await self.may_start.wait()


def test_keys_that_change_nothing_are_answered() -> None:
    async def scenario() -> tuple[list[str], list[str]]:
        cast, figures = Silent(), Figures()
        conductor = Conductor(Options(), cast, display.Plain(), ManualClock(), figures)
        near, far = os.pipe()

        def press(keys: str) -> None:
            os.write(far, keys.encode())
            conductor.key(near)

        press("cc")
        press("kk")
        await asyncio.sleep(0)
        conductor.heard({"from": "proxy", "event": "restored"})
        press("c")
        figures.ending = True
        press("ckg")
        cast.may_start.set()
        assert conductor._killing is not None
        await conductor._killing
        os.close(near)
        os.close(far)
        return cast.asked, [line.split(" s  ")[1] for line in figures.happenings]

    asked, said = asyncio.run(scenario())
    assert asked == ["cut", "kill", "cut"]
    assert "the uplink is cut already" in said
    assert "the edge is being started again already" in said


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_child_talks_obeys_and_ends(tmp_path: Path) -> None:
    code = (
        'import sys\nprint(\'{"event":"ready"}\', flush=True)\n'
        'for line in sys.stdin: print(\'{"event":"said","line":"%s"}\' % line.strip(), flush=True)\n'
    )

    async def scenario() -> list[dict[str, Any]]:
        said: list[dict[str, Any]] = []
        child = await Child.start("parrot", ["-c", code], tmp_path, said.append)
        child.say("hello")
        await child.stop()
        assert child.returncode == 0
        return said

    assert asyncio.run(scenario()) == [{"event": "ready"}, {"event": "said", "line": "hello"}]


def test_a_stubborn_child_is_ended_with_its_whole_group(tmp_path: Path) -> None:
    code = (
        "import signal, subprocess, sys, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(100)'])\n"
        "print(child.pid, flush=True)\ntime.sleep(100)\n"
    )

    async def scenario() -> None:
        child = await Child.start("stubborn", ["-c", code], tmp_path)
        while not child.log.read_text().strip():  # noqa: ASYNC110 - a file has no event
            await asyncio.sleep(0.01)
        await child.stop(patience_s=0.1)
        assert not alive(child.pid)
        async with asyncio.timeout(10):  # a signal's effect on a process that is not ours to wait for
            while alive(int(child.log.read_text())):  # noqa: ASYNC110 - nor has a pid
                await asyncio.sleep(0.01)

    asyncio.run(scenario())


def test_a_failed_child_shows_the_end_of_its_log(tmp_path: Path) -> None:
    async def scenario() -> UserError:
        child = await Child.start("edge", ["-c", "import sys; sys.exit('port 1883 is taken')"], tmp_path)
        await child.ended()
        return child.complaint()

    error = asyncio.run(scenario())
    assert "edge ended with status 1" in error.what
    assert "port 1883 is taken" in error.hint


def test_children_die_with_a_demo_that_is_killed(tmp_path: Path) -> None:
    code = (
        "import asyncio, pathlib, sys\nfrom headwater.demo.children import Child\n"
        "async def main():\n"
        "    child = await Child.start('sleeper', ['-c', 'print(1, flush=True); import time; time.sleep(100)'],"
        " pathlib.Path(sys.argv[1]))\n"
        "    while not child.log.read_text(): await asyncio.sleep(0.01)\n"
        "    print(child.pid, flush=True)\n    await asyncio.sleep(100)\n"
        "asyncio.run(main())\n"
    )
    demo = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    assert demo.stdout is not None
    pid = int(demo.stdout.readline())
    assert alive(pid)
    os.kill(demo.pid, signal.SIGKILL)
    demo.wait()
    demo.stdout.close()
    for _ in range(500):
        if not alive(pid):
            break
        time.sleep(0.01)  # the kernel's signal takes a moment
    assert not alive(pid)
