"""The bridge as a process of its own on a CPU of its own, and what /proc tells about it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bridge

_START_LIMIT_S = 15.0
_STOP_LIMIT_S = 15.0
OWN_SOURCE = Path(str(bridge.__file__)).parent.parent
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class BridgeDied(Exception):
    """The bridge did not start, or has ended; the text holds the end of its log."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process has used so far, and what its CPU was busy with, in seconds; `rss_kb` is now."""

    at: float
    cpu_s: float
    switches: int
    rss_kb: int
    cpu_busy_s: float


@dataclass(slots=True)
class BridgeProcess:
    """A running bridge."""

    popen: subprocess.Popen[bytes]
    cpu: int | None
    port: int
    log: Path

    def usage(self) -> Usage:
        """Read /proc. Threads are counted in."""
        proc = Path(f"/proc/{self.popen.pid}")
        try:
            # The name in parentheses may hold spaces; utime and stime are fields 14 and 15.
            ticks = (proc / "stat").read_text().rpartition(")")[2].split()[11:13]
            switches = sum(
                int(line.split()[1])
                for status in proc.glob("task/*/status")
                for line in status.read_text().splitlines()
                if "ctxt_switches" in line
            )
            rss = next(line for line in (proc / "status").read_text().splitlines() if line.startswith("VmRSS"))
        except (OSError, StopIteration) as error:
            raise BridgeDied(f"the bridge has ended:\n{self.end_of_log()}") from error
        cpu_s = sum(map(int, ticks)) / _TICKS_PER_S
        return Usage(time.monotonic(), cpu_s, switches, int(rss.split()[1]), _busy_s(self.cpu))

    def lines(self) -> list[dict[str, Any]]:
        """What the bridge has logged."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]

    def end_of_log(self) -> str:
        return "\n".join(self.log.read_text().splitlines()[-12:])


def _busy_s(cpu: int | None) -> float:
    """What a CPU has done for anybody; without a number 0."""
    if cpu is None:
        return 0.0
    line = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith(f"cpu{cpu} "))
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, line.split()[1:9])
    return (user + nice + system + irq + softirq + steal) / _TICKS_PER_S


def split_cpus() -> tuple[int | None, set[int]]:
    """The bridge's CPU and those of the generator; (None, all) where there is only one."""
    cpus = sorted(os.sched_getaffinity(0))
    return (cpus[0], set(cpus[1:])) if len(cpus) > 1 else (None, set(cpus))


@dataclass(frozen=True, slots=True)
class Candidate:
    """The bridge to be measured: its interpreter, the folder that holds its package, and whether it is `preferred` to
    whatever else runs here (real-time scheduling, root only; nice -20 still made it wait up to 100 ms for its CPU), so
    that a busy machine does not count against it. Linux then keeps 5 % of the CPU for others."""

    python: str
    version: str
    source: Path = OWN_SOURCE
    preferred: bool = False


@contextmanager
def running_bridge(
    candidate: Candidate, realtime_url: str, max_calls: int, cpu: int | None, certificate: Path | None = None
) -> Iterator[BridgeProcess]:
    """Start `bridge serve` with plain calls and no ARI; ends it afterwards. Raises `BridgeDied`.

    The lag is 0, so what the bridge says was heard is to be what the caller's socket got. The format of a plain call is
    learnt from its first frame. `certificate` is one to trust.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        config, log = Path(folder) / "bridge.toml", Path(folder) / "log"
        # Nobody here waits for an answer that is late: what is played was sent by the model, all of it.
        config.write_text(
            f'[server]\naudiosocket_port = 0\nmax_calls = {max_calls}\nmax_lateness_ms = 0\nlog_format = "json"\n'
            'health_address = ""\ncontrol_address = ""\n'
            f"[asterisk]\nenabled = false\nlag_ms = 0\n"
            f'[realtime]\nurl = "{realtime_url}"\napi_key = "bench"\n'
            "[limits]\ncaller_waits_s = 1000.0\ncaller_waits_repeat_s = 1000.0\n"
        )
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("BRIDGE_", "OPENAI_"))}
        if certificate is not None:
            environment["SSL_CERT_FILE"] = str(certificate)
        # The same source, whatever interpreter runs it.
        environment["PYTHONPATH"] = str(candidate.source)
        command = [candidate.python, "-m", "bridge", "serve", "--config", str(config)]
        with log.open("wb") as output:
            popen = subprocess.Popen(command, stdout=output, stderr=output, env=environment, cwd=folder)
        process = BridgeProcess(popen, cpu, 0, log)
        try:
            _place(popen.pid, cpu, candidate.preferred)
            process.port = _wait_for_port(process)
            yield process
        finally:
            _stop(popen)


def _place(pid: int, cpu: int | None, preferred: bool) -> None:
    """Before it has imported anything, so that all threads of numpy inherit it."""
    with suppress(ProcessLookupError):
        if cpu is not None:
            os.sched_setaffinity(pid, {cpu})
        if preferred:
            os.sched_setscheduler(pid, os.SCHED_FIFO, os.sched_param(1))


def _wait_for_port(process: BridgeProcess) -> int:
    deadline = time.monotonic() + _START_LIMIT_S
    while time.monotonic() < deadline and process.popen.poll() is None:
        for line in process.lines():
            if line.get("event") == "listening for AudioSocket":
                return int(line["port"])
        time.sleep(0.05)
    raise BridgeDied(f"the bridge did not start:\n{process.end_of_log()}")


def _stop(popen: subprocess.Popen[bytes]) -> None:
    for sent in (signal.SIGTERM, signal.SIGKILL):
        if popen.poll() is None:
            popen.send_signal(sent)
            try:
                popen.wait(_STOP_LIMIT_S)
            except subprocess.TimeoutExpired:
                continue
