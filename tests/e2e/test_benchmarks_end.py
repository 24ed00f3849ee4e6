"""A benchmark that a time limit ends takes the programs that it started with it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_what_a_benchmark_has_started_ends_with_it(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "endless.py").write_text(
        "import signal\n"
        "from pathlib import Path\n"
        "from benchmarks.processes import running\n"
        "def main(*, rounds):\n"
        f"    with running(['sleep', 'infinity'], Path({str(tmp_path / 'log')!r})) as process:\n"
        "        print(process.pid, flush=True)\n"
        "        signal.pause()\n"
    )
    program = (
        "import signal; signal.signal(signal.SIGHUP, signal.SIG_DFL);"  # under nohup it is ignored, and stays so
        f" import sys; sys.path.insert(0, {str(tmp_path)!r}); import benchmarks.__main__ as program;"
        " program.BENCHMARKS['endless'] = 'endless'; sys.argv = ['bench', 'endless']; program.main()"
    )
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True) as bench:
        assert bench.stdout is not None
        started = int(bench.stdout.readline())
        assert Path(f"/proc/{started}").exists()
        bench.send_signal(number)
        assert bench.wait(60) == 128 + number
    assert not Path(f"/proc/{started}").exists()
