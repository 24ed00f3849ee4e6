"""`python -m benchmarks [NAME …]`: run the benchmarks of these names, or all."""

from __future__ import annotations

import argparse
import importlib
import signal
import sys

BENCHMARKS = {
    "devices-decode": "benchmarks.devices_decode",
    "kill-compare": "benchmarks.kill_compare",
    "mqtt-client": "benchmarks.mqtt_client",
    "mqtt-ingest": "benchmarks.mqtt_ingest",
    "mqtt-steady": "benchmarks.mqtt_steady",
    "node-consume": "benchmarks.node_consume",
    "node-latency": "benchmarks.node_latency",
    "node-produce": "benchmarks.node_produce",
    "node-raw": "benchmarks.node_raw",
    "node-start": "benchmarks.node_start",
    "node-wear": "benchmarks.node_wear",
    "window-state": "benchmarks.window_state",
    "window-step": "benchmarks.window_step",
    "windows": "benchmarks.windows",
}
_ENDS = (signal.SIGTERM, signal.SIGHUP)


def end_by(number: int, _frame: object) -> None:
    """Unwinds what runs, as an interrupt does, so that every program that was started for a benchmark ends with it."""
    for each in _ENDS:
        signal.signal(each, signal.SIG_IGN)  # a second one would stop the tidying up
    raise SystemExit(128 + number)


def main() -> int:
    for each in _ENDS:
        if signal.getsignal(each) is not signal.SIG_IGN:  # as under nohup
            signal.signal(each, end_by)
    parser = argparse.ArgumentParser(prog="make bench", description="Run benchmarks, each beside its peer.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--rounds", type=int, default=3, help="at least 3 to be worth reporting")
    given = parser.parse_args()
    if unknown := [name for name in given.names if name not in BENCHMARKS]:
        parser.error(f"no benchmark is called {unknown[0]}; there are {', '.join(BENCHMARKS)}")
    for name in given.names or BENCHMARKS:
        importlib.import_module(BENCHMARKS[name]).main(rounds=given.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
