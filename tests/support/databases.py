"""Real time-series databases that `make peers` builds, each on a port and in a folder of its own."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from headwater.net import free_port
from tests.support.peers import BUILT

START_S_MAX = 30.0


class Database:
    """A process that is waited for; its log lies in its folder."""

    def __init__(self, folder: Path, command: list[str], port: int, health: str) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.folder = folder
        folder.mkdir(exist_ok=True)
        with open(folder / "log", "ab") as log:
            self.process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, env={"HOME": str(folder)})
        deadline = time.monotonic() + START_S_MAX
        while True:
            try:
                self.get(health)
                return
            except OSError:
                assert self.process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.05)

    def get(self, path: str, **asked: str) -> str:
        query = f"?{urllib.parse.urlencode(asked)}" if asked else ""
        with urllib.request.urlopen(f"{self.url}{path}{query}", timeout=10) as answer:
            text: str = answer.read().decode()
            return text

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


class VictoriaMetrics(Database):
    """Speaks InfluxDB's write API; takes numbers only."""

    def __init__(self, folder: Path) -> None:
        port = free_port()
        command = [str(BUILT / "victoria-metrics"), f"-httpListenAddr=127.0.0.1:{port}", "-storageDataPath=data"]
        super().__init__(folder, [*command, "-retentionPeriod=100y"], port, "/health")

    def samples(self, match: str) -> dict[tuple[str, ...], dict[int, float]]:
        """Every sample of the series that match: (name, device) to time in ms to value."""
        self.get("/internal/force_flush")
        lines = self.get("/api/v1/export", **{"match[]": match}).splitlines()
        found: dict[tuple[str, ...], dict[int, float]] = {}
        for line in map(json.loads, lines):
            name = line["metric"]["__name__"], line["metric"]["device"]
            found[name] = dict(zip(line["timestamps"], line["values"], strict=True))
        return found


class InfluxDB(Database):
    """InfluxDB 2.7 with a bucket `b`, an organisation `o` and the token `t0ken`."""

    def __init__(self, folder: Path) -> None:
        port = free_port()
        command = [str(BUILT / "influxd"), f"--http-bind-address=127.0.0.1:{port}", "--bolt-path=bolt"]
        command += ["--engine-path=engine", "--sqlite-path=sqlite", "--reporting-disabled"]
        super().__init__(folder, command, port, "/health")
        self.post(
            "/api/v2/setup", {"username": "u", "password": "passw0rd", "org": "o", "bucket": "b", "token": "t0ken"}
        )

    def post(self, path: str, body: dict[str, Any]) -> None:
        request = urllib.request.Request(
            f"{self.url}{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        urllib.request.urlopen(request, timeout=10).close()
