"""The supervisor with real processes and real sockets; the workers in them are fakes that start in no time."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from bridge.config import load_config
from bridge.errors import ConfigError
from bridge.supervisor import Supervisor
from bridge.worker_policy import Stage

FAKE = [sys.executable, "-I", "-S", str(Path(__file__).parent / "fake_worker.py")]


class Watch:
    """A supervisor that runs, and what its workers have noted in `folder`."""

    def __init__(self, supervisor: Supervisor, folder: Path, port: int) -> None:
        self.supervisor, self.folder, self.port = supervisor, folder, port
        self.status: int | None = None

    def log(self) -> list[str]:
        path = self.folder / "log"
        return path.read_text().splitlines() if path.exists() else []

    def pid(self, number: int) -> int:
        report = self.supervisor.workers()[number - 1].report
        return 0 if report is None else report.pid

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():  # noqa: ASYNC110 - processes and files do not wake us
            await trio.sleep(0.005)

    async def all_up(self) -> None:
        await self.until(lambda: all(worker.ready for worker in self.supervisor.workers()))

    async def get(self, path: str) -> str:
        async with await trio.open_tcp_stream("127.0.0.1", self.port) as stream:
            await stream.send_all(f"GET {path} HTTP/1.1\r\nHost: bridge\r\n\r\n".encode())
            return b"".join([data async for data in stream]).decode()


@asynccontextmanager
async def supervised(
    folder: Path, *, workers: int = 2, check: Callable[[], object] = lambda: None, command: list[str] | None = None
) -> AsyncIterator[Watch]:
    """Ends by cancelling, if not before."""
    config = load_config(f"[server]\nworkers = {workers}\nhealth_address = '127.0.0.1:0'", {})
    supervisor = Supervisor(config, command or [*FAKE, str(folder)], os.environ, check)
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            watch = Watch(supervisor, folder, 0)

            async def run(task_status: trio.TaskStatus[int]) -> None:
                watch.status = await supervisor.run(task_status)

            watch.port = await nursery.start(run)
            yield watch
            nursery.cancel_scope.cancel()


async def ended(watch: Watch) -> int:
    await watch.until(lambda: watch.status is not None)
    assert watch.status is not None
    return watch.status


async def test_all_workers_are_told_of_in_one_place_and_drain_together(tmp_path: Path) -> None:
    async with supervised(tmp_path) as watch:
        await watch.all_up()
        assert (await watch.get("/readyz")).endswith("worker 1: ready; 1 calls\nworker 2: ready; 1 calls\n")
        assert 'realtime_bridge_calls_running{worker="2"} 1.0' in await watch.get("/metrics")
        os.kill(os.getpid(), signal.SIGTERM)
        assert await ended(watch) == 0
    assert sorted(watch.log()) == ["1 drain", "1 starts", "2 drain", "2 starts"]


async def test_a_worker_that_is_killed_is_replaced_and_the_other_lives_on(tmp_path: Path) -> None:
    async with supervised(tmp_path) as watch:
        await watch.all_up()
        before = watch.pid(1), watch.pid(2)
        os.kill(before[0], signal.SIGKILL)
        await watch.until(lambda: not watch.supervisor.workers()[0].ready)
        assert "HTTP/1.1 200 OK" in await watch.get("/readyz")
        await watch.all_up()
        assert watch.pid(1) != before[0]
        assert watch.pid(2) == before[1]
        assert 'realtime_bridge_worker_restarts_total{worker="1"} 1.0' in await watch.get("/metrics")


async def test_sighup_replaces_one_after_the_other(tmp_path: Path) -> None:
    async with supervised(tmp_path) as watch:
        await watch.all_up()
        before = {watch.pid(1), watch.pid(2)}
        os.kill(os.getpid(), signal.SIGHUP)
        await watch.until(lambda: len(watch.log()) == 6)
        await watch.all_up()
        assert not before & {watch.pid(1), watch.pid(2)}
        assert watch.log()[2:] == ["1 drain", "1 starts", "2 drain", "2 starts"]
        assert [worker.restarts for worker in watch.supervisor.workers()] == [0, 0]


async def test_a_wrong_new_configuration_restarts_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def check() -> None:
        raise ConfigError("bridge.toml:3: server.workers: must be 1 to 100")

    async with supervised(tmp_path, check=check) as watch:
        await watch.all_up()
        watch.supervisor.roll()
        assert [watch.supervisor.policy.stage(number) for number in (1, 2)] == [Stage.RUNNING] * 2
    assert "not restarting the workers: bridge.toml:3" in caplog.text


async def test_a_worker_whose_configuration_is_wrong_ends_the_command(tmp_path: Path) -> None:
    (tmp_path / "2").write_text("misconfigured")
    async with supervised(tmp_path) as watch:
        assert await ended(watch) == 2
    assert watch.log().count("2 starts") == 1


async def test_a_second_signal_ends_the_calls(tmp_path: Path) -> None:
    (tmp_path / "1").write_text("does not end its calls")
    async with supervised(tmp_path) as watch:
        await watch.all_up()
        watch.supervisor.drain()
        await watch.until(lambda: watch.supervisor.policy.stage(2) is Stage.ENDED)
        assert (await watch.get("/readyz")).startswith("HTTP/1.1 503")
        watch.supervisor.drain()
        assert await ended(watch) == 0
    assert watch.log()[-1] == "1 stop"


async def test_cancelled_it_leaves_no_process_behind(tmp_path: Path) -> None:
    (tmp_path / "1").write_text("does not end its calls")
    async with supervised(tmp_path) as watch:
        await watch.all_up()
        pids = watch.pid(1), watch.pid(2)
    assert sorted(watch.log()[-2:]) == ["1 stop", "2 stop"]
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def test_a_worker_that_babbles_is_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "1").write_text("babbles")
    async with supervised(tmp_path) as watch:
        await watch.until(lambda: "worker 1: not Report" in caplog.text)
        assert watch.supervisor.policy.stage(1) is Stage.STARTING


async def test_a_command_that_can_not_be_started_is_tried_again(tmp_path: Path) -> None:
    async with supervised(tmp_path, command=[str(tmp_path / "missing")]) as watch:
        await watch.until(lambda: watch.supervisor.policy.stage(1) is Stage.WAITING)
        watch.supervisor.drain()
        assert await ended(watch) == 0


async def test_a_health_port_that_is_taken_is_named(tmp_path: Path) -> None:
    async with supervised(tmp_path) as watch:
        config = load_config(f"[server]\nworkers = 2\nhealth_address = '127.0.0.1:{watch.port}'", {})
        with pytest.RaisesGroup(pytest.RaisesExc(ConfigError, match=r"server\.health_address: cannot listen")):
            await Supervisor(config, FAKE, {}, lambda: None).run()
