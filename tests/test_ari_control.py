"""Call control against the fake Asterisk, in virtual time: calls, faults, leftovers."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import msgspec
import pytest
import trio

from bridge.ari_app import AriApp
from bridge.ari_control import ChannelControl, harmless
from bridge.config import Asterisk, FormatChoice
from bridge.ending import EndReason
from bridge.errors import ControlRefused, ControlUnavailable
from bridge.leg import CallControl, ControlDigit, ControlHungUp
from simulators.ari_server import HUNG_UP, AriServer, FakeChannel, Place

CALL = UUID("40b30b6e-d0c2-4312-ad32-d601cde987a7")
MEDIA, BRIDGE = f"realtime-media-{CALL}", f"realtime-bridge-{CALL}"
CONFIG = Asterisk(password="bridge")


class Setup:
    """A fake Asterisk, our app on it, and the controls that it handed out."""

    def __init__(self, config: Asterisk = CONFIG, ari: AriServer | None = None) -> None:
        self.ari = ari or AriServer()
        self.controls: list[ChannelControl] = []
        self.app = AriApp(config, 2.0, self.controls.append, connect_stream=self.ari.connect)

    async def call(self, *arguments: str, state: str = "Ring") -> tuple[FakeChannel, ChannelControl]:
        """A caller who has just entered."""
        channel = self.ari.incoming_call(*arguments, state=state)
        await trio.testing.wait_all_tasks_blocked()
        return channel, self.controls[-1]

    async def joined_call(self) -> tuple[FakeChannel, ChannelControl]:
        """A caller who is answered and in the bridge with its media."""
        channel, control = await self.call()
        await control.prepare_media(CALL, "slin16")
        await control.answer()
        return channel, control

    def asked(self, method: str, uri: str) -> int:
        """How often this was requested."""
        return sum((method, uri) == request[:2] for request in self.ari.requests)

    def clear(self) -> bool:
        """Nothing of ours is left in Asterisk."""
        return not self.ari.bridges and not any(name.startswith("realtime") for name in self.ari.channels)


@asynccontextmanager
async def running(config: Asterisk = CONFIG, ari: AriServer | None = None) -> AsyncIterator[Setup]:
    setup = Setup(config, ari)
    async with trio.open_nursery() as nursery:
        await nursery.start(setup.ari.run)
        await nursery.start(setup.app.run)
        yield setup
        nursery.cancel_scope.cancel()


async def hung_up(control: ChannelControl) -> ControlHungUp:
    """The next event, which must be the hang-up, at once."""
    with trio.fail_after(0.1):
        event = await control.next_event()
    assert isinstance(event, ControlHungUp)
    return event


async def silence(control: ChannelControl) -> bool:
    """Whether nothing more is reported within a second."""
    with trio.move_on_after(1):
        await control.next_event()
        return False
    return True


async def test_a_call_from_ringing_to_bridged_media(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as setup:
        media: list[tuple[str, str, str]] = []
        setup.ari.on_external_media = lambda *what: media.append(what)
        channel, control = await setup.call("sales", "premium")
        assert_protocol: CallControl = control  # for the type checker
        assert assert_protocol.reports_digits
        assert (control.name, control.caller, control.called) == (channel.name, "1001 Alice", "100")
        assert control.arguments == ["sales", "premium"]
        await control.prepare_media(CALL, "slin16")
        assert media == [("127.0.0.1:9092", str(CALL), "slin16")]
        assert channel.state == "Ring"
        await control.answer()
        assert channel.state == "Up"
        assert setup.ari.bridges[BRIDGE].members == [channel, setup.ari.channels[MEDIA]]
        assert (setup.app.connected, setup.app.asterisk_version) == (True, "22.10.1")


@pytest.mark.parametrize(
    ("wanted", "version", "resampler", "chosen"),
    [
        ("auto", "22.10.1", "Running", "slin24"),
        ("auto", "22.10.1", "Not Running", "slin"),
        ("auto", "22.10.1", None, "slin"),
        ("auto", "20.16.0", "Running", "slin"),
        ("auto", "GIT-master-1", "Running", "slin"),
        ("slin16", "20.16.0", "Running", "slin"),
        ("slin16", "22.10.1", None, "slin16"),
    ],
)
async def test_the_media_format_is_what_this_asterisk_can_do(
    autojump_clock: trio.testing.MockClock,
    caplog: pytest.LogCaptureFixture,
    wanted: FormatChoice,
    version: str,
    resampler: str | None,
    chosen: str,
) -> None:
    caplog.set_level(logging.INFO, "bridge.ari")
    ari = AriServer(version=version)
    del ari.modules["codec_resample.so"]
    if resampler is not None:
        ari.modules["codec_resample.so"] = resampler
    async with running(Asterisk(password="bridge", format=wanted), ari) as setup:
        _, control = await setup.call()
        assert control.media_format.value == chosen
    assert f"Asterisk {version}, app bridge-1, media {chosen}" in caplog.text


async def test_what_a_version_is_known_for_is_told_once(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "bridge.ari")
    async with running() as setup:
        for _ in range(2):
            await setup.ari.drop_connection()
            await trio.sleep(20)
    told = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert sum(text.startswith("ARI connected: Asterisk 22.10.1") for _, text in told) == 3
    assert [level for level, text in told if text.startswith("Asterisk 22.10.1: a peer that sends nothing")] == [
        "INFO"
    ]


async def test_answer_is_idempotent_and_leaves_an_answered_caller_alone(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running() as setup:
        channel, control = await setup.call(state="Up")
        await control.prepare_media(CALL, "slin16")
        await control.answer()
        await control.answer()
        assert setup.asked("POST", f"channels/{channel.id}/answer") == 0
        assert setup.asked("POST", f"bridges/{BRIDGE}/addChannel") == 1


async def test_answer_waits_until_the_media_channel_is_in_stasis(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as setup:
        with setup.ari.delayed_stasis_start(1.5):
            _, control = await setup.call()
            await control.prepare_media(CALL, "slin16")
            began = trio.current_time()
            await control.answer()
        assert trio.current_time() - began == pytest.approx(1.5)


async def test_a_caller_is_not_answered_when_its_media_never_comes(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as setup:
        with setup.ari.delayed_stasis_start(60):
            channel, control = await setup.call()
            await control.prepare_media(CALL, "slin16")
            with pytest.raises(ControlUnavailable, match="media channel is not in the Stasis app"):
                await control.answer()
        assert channel.state == "Ring"


async def test_a_refused_media_connection_names_the_remedy_and_leaves_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    def refuse(host: str, uuid: str, media_format: str) -> None:
        raise ConnectionRefusedError

    async with running() as setup:
        setup.ari.on_external_media = refuse
        channel, control = await setup.call()
        with pytest.raises(ControlRefused, match=r"asterisk\.media_address 127\.0\.0\.1:9092") as caught:
            await control.prepare_media(CALL, "slin16")
        assert caught.value.status == 500
        assert setup.clear()
        await control.release(EndReason.MEDIA_NEVER_ARRIVED, str(caught.value))
        assert channel.dialplan == Place()
        assert channel.variables["BRIDGE_END_REASON"] == "media_never_arrived"
        assert "," not in channel.variables["BRIDGE_END_DETAIL"]


async def test_digits_then_one_hang_up_then_silence(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as setup:
        channel, control = await setup.joined_call()
        channel.press("5")
        channel.press("#")
        channel.hang_up(cause=17)
        assert await control.next_event() == ControlDigit("5")
        assert await control.next_event() == ControlDigit("#")
        assert await hung_up(control) == ControlHungUp(17, "the caller hung up")
        assert await silence(control)
        await control.release(EndReason.CALLER_HUNG_UP, "")
        assert setup.clear()


async def test_a_hang_up_is_never_lost_among_unread_digits(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as setup:
        channel, control = await setup.joined_call()
        for _ in range(50):
            channel.press("1")
        channel.hang_up()
        await trio.testing.wait_all_tasks_blocked()
        events = [await control.next_event() for _ in range(32)]
        assert events[:31] == [ControlDigit("1")] * 31
        assert isinstance(events[31], ControlHungUp)


async def test_the_caller_who_hangs_up_before_the_answer(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as setup:
        channel, control = await setup.call()
        await control.prepare_media(CALL, "slin16")
        channel.hang_up()
        with pytest.raises((ControlRefused, ControlUnavailable)):
            await control.answer()
        assert (await hung_up(control)).cause == 16
        await control.release(EndReason.CALLER_HUNG_UP, "")
        assert setup.clear()


async def test_a_media_channel_that_ends_is_not_a_hang_up(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as setup:
        channel, control = await setup.joined_call()
        setup.ari.channels[MEDIA].leave(HUNG_UP)
        assert await silence(control)
        # The call ends by its media connection, whatever it calls that; the caller must not stay in silence.
        await control.release(EndReason.CALLER_HUNG_UP, "")
        assert channel.dialplan == Place()


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        (EndReason.AGENT_HUNG_UP, HUNG_UP),
        (EndReason.MAX_DURATION, HUNG_UP),
        (EndReason.MODEL_UNREACHABLE, Place()),
        (EndReason.REFUSED_BUSY, Place()),
    ],
)
async def test_release_does_what_the_farewell_says(
    reason: EndReason, expected: object, autojump_clock: trio.testing.MockClock
) -> None:
    async with running() as setup:
        channel, control = await setup.joined_call()
        await control.release(reason, "a, b\n${EXTEN}")
        assert channel.dialplan == expected
        assert channel.variables == {"BRIDGE_END_REASON": reason.value, "BRIDGE_END_DETAIL": "a b EXTEN"}
        assert setup.clear()
        count = len(setup.ari.requests)
        await control.release(EndReason.INTERNAL_ERROR, "again")
        assert len(setup.ari.requests) == count
        assert await silence(control)


async def test_release_continues_where_the_settings_say(autojump_clock: trio.testing.MockClock) -> None:
    config = msgspec.structs.replace(CONFIG, continue_context="fallback")
    async with running(config) as setup:
        setup.ari.dialplan.add(("fallback", "s", "1"))
        channel, control = await setup.joined_call()
        await control.release(EndReason.MODEL_LOST, "")
        assert channel.dialplan == Place("fallback", "s", "1")


async def test_a_setting_that_leads_nowhere_costs_no_caller(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Asterisk takes any place, and hangs up who is sent to one that is not there."""
    config = msgspec.structs.replace(CONFIG, continue_context="falback")
    async with running(config) as setup:
        channel, control = await setup.joined_call()
        await control.release(EndReason.MODEL_LOST, "")
        assert channel.dialplan == Place()
    assert "no s@falback (asterisk.continue_context" in caplog.text


@pytest.mark.parametrize(
    ("destination", "place"),
    [
        ("601", Place("phones", "601", "1")),
        ("s@queue-sales", Place("queue-sales", "s", "1")),
        ("*98@features,2", Place("features", "*98", "2")),
    ],
)
async def test_transfer(destination: str, place: Place, autojump_clock: trio.testing.MockClock) -> None:
    async with running() as setup:
        setup.ari.dialplan.add((place.context, place.exten, place.priority))
        channel, control = await setup.joined_call()
        await control.transfer(destination)
        assert channel.dialplan == place
        assert channel.variables["BRIDGE_END_REASON"] == "transferred"
        assert await silence(control)
        await control.release(EndReason.TRANSFERRED, "")
        assert channel.dialplan == place
        assert setup.clear()


@pytest.mark.parametrize("destination", ["999", "601@nowhere", "", "601@a@b", "601,2", "${X}", "601@phones)"])
async def test_a_transfer_to_nowhere_is_refused_and_the_call_goes_on(
    destination: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with running() as setup:
        channel, control = await setup.joined_call()
        with pytest.raises(ControlRefused):
            await control.transfer(destination)
        assert channel.dialplan is None
        assert "BRIDGE_END_REASON" not in channel.variables
        channel.hang_up()
        assert (await hung_up(control)).cause == 16


async def test_an_asterisk_that_can_not_check_a_destination_is_trusted(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with running() as setup:
        setup.ari.has_func_dialplan = False
        setup.ari.dialplan.add(("phones", "601", "1"))
        channel, control = await setup.joined_call()
        await control.transfer("601")
        assert channel.dialplan == Place("phones", "601", "1")
        assert "load func_dialplan.so" in caplog.text


async def test_a_transfer_whose_answer_is_lost_is_judged_by_stasis_end(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running() as setup:
        setup.ari.dialplan.add(("phones", "601", "1"))
        channel, control = await setup.joined_call()
        with setup.ari.never_answers(f"POST channels/{channel.id}/continue"):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(control.transfer, "601")
                await trio.sleep(0.5)
                channel.leave(Place("phones", "601", "1"))
        assert await silence(control)


async def test_a_hang_up_while_a_transfer_is_refused_is_reported(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as setup:
        setup.ari.dialplan.add(("phones", "601", "1"))
        channel, control = await setup.joined_call()
        with setup.ari.never_answers(f"POST channels/{channel.id}/continue"):
            async with trio.open_nursery() as nursery:

                async def transfer() -> None:
                    with pytest.raises(ControlUnavailable):
                        await control.transfer("601")

                nursery.start_soon(transfer)
                await trio.sleep(0.5)
                channel.hang_up(cause=16)
        assert await hung_up(control) == ControlHungUp(16, "the caller hung up")


async def test_a_transferred_caller_may_come_back_with_the_same_channel(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running() as setup:
        setup.ari.dialplan.add(("phones", "601", "1"))
        channel, control = await setup.joined_call()
        await control.transfer("601")
        channel.returns("again")
        await trio.testing.wait_all_tasks_blocked()
        await control.release(EndReason.TRANSFERRED, "")
        channel.hang_up()
        assert setup.controls[-1].arguments == ["again"]
        assert (await hung_up(setup.controls[-1])).cause == 16


async def test_an_asterisk_that_never_answers_a_request_costs_nobody_else_anything(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running() as setup:
        channel, control = await setup.joined_call()
        with setup.ari.never_answers(f"DELETE channels/{channel.id}"):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(control.release, EndReason.AGENT_HUNG_UP, "")
                began = trio.current_time()
                other, other_control = await setup.call()
                await other_control.prepare_media(UUID(int=2), "slin16")
                await other_control.answer()
                assert trio.current_time() == began
        assert trio.current_time() - began == pytest.approx(2.0)
        assert channel.dialplan is None
        await trio.sleep(65)  # the next sweep
        assert channel.dialplan == HUNG_UP
        assert other.dialplan is None


async def test_a_release_cut_short_is_finished_by_the_sweep(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as setup:
        channel, control = await setup.joined_call()
        with setup.ari.never_answers("POST channels"), setup.ari.never_answers("DELETE"), trio.move_on_after(1):
            await control.release(EndReason.MODEL_LOST, "gone")
        assert not setup.clear()
        await trio.sleep(65)
        assert setup.clear()
        assert (channel.dialplan, channel.variables["BRIDGE_END_REASON"]) == (Place(), "model_lost")


async def test_a_call_that_ends_while_the_connection_is_lost_is_cleared_after_it_returns(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running() as setup:
        channel, control = await setup.joined_call()
        await setup.ari.drop_connection()
        await trio.sleep(0.1)
        began = trio.current_time()
        await control.release(EndReason.AGENT_HUNG_UP, "bye")
        assert trio.current_time() == began
        await trio.sleep(5)
        assert (channel.dialplan, channel.variables["BRIDGE_END_DETAIL"]) == (HUNG_UP, "bye")
        assert setup.clear()


async def test_a_hang_up_missed_while_disconnected_is_told_after_it(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as setup:
        channel, control = await setup.joined_call()
        await setup.ari.drop_connection()
        channel.hang_up()
        with trio.fail_after(5):
            assert await control.next_event() == ControlHungUp(0, "gone; its hang-up was missed")
        await control.release(EndReason.CALLER_HUNG_UP, "")
        assert setup.clear()


async def test_a_call_lives_on_across_a_reconnect(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as setup:
        channel, control = await setup.joined_call()
        await setup.ari.drop_connection()
        await trio.sleep(5)
        channel.press("7")
        assert await control.next_event() == ControlDigit("7")
        assert setup.ari.bridges[BRIDGE].members[0] is channel


def dies(ari: AriServer) -> None:
    """A process of ours: its sockets go with it, and so its media channels."""
    for channel in [it for name, it in ari.channels.items() if name.startswith("realtime-media")]:
        channel.leave(HUNG_UP)


async def test_the_calls_of_another_process_with_our_app_go_on(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody starts a second one: it has the new calls until the first takes the app back, and nobody is harmed."""
    async with running() as setup:
        channel, control = await setup.joined_call()
        waiting, _ = await setup.call()  # its media has not come yet
        other = AriApp(CONFIG, 2.0, lambda control: None, connect_stream=setup.ari.connect)
        async with trio.open_nursery() as nursery:
            await nursery.start(other.run)
            await trio.sleep(10)
            assert setup.ari.bridges[BRIDGE].members[0] is channel
            assert (channel.dialplan, waiting.dialplan) == (None, None)
            assert caplog.text.count("another process holds calls in the Stasis app bridge-1") == 1
            channel.hang_up()  # the other process is told; we find out
            began = trio.current_time()
            assert await control.next_event() == ControlHungUp(0, "gone; its hang-up was missed")
            assert trio.current_time() - began <= 3
            await trio.sleep(100)
            assert caplog.text.count("another process took the Stasis app") == 4, "one change in half a minute"
            nursery.cancel_scope.cancel()


async def test_what_a_machine_that_vanished_left_behind_is_cleared_after_a_while(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Asterisk takes its connections for alive, until its TCP gives up; nobody comes for the app any more."""
    ari = AriServer()
    async with trio.open_nursery() as nursery:
        await nursery.start(ari.run)
        controls: list[ChannelControl] = []
        vanished = AriApp(CONFIG, 2.0, controls.append, connect_stream=ari.connect)
        async with trio.open_nursery() as its:
            await its.start(vanished.run)
            channel = ari.incoming_call()
            await trio.testing.wait_all_tasks_blocked()
            await controls[0].prepare_media(CALL, "slin16")
            await controls[0].answer()
            its.cancel_scope.cancel()
        app = AriApp(CONFIG, 2.0, controls.append, connect_stream=ari.connect)
        await nursery.start(app.run)
        await trio.sleep(40)
        assert channel.dialplan is None
        await trio.sleep(10)
        assert channel.dialplan == Place()
        assert not ari.bridges
        nursery.cancel_scope.cancel()


async def test_what_a_crash_left_behind_is_cleared_by_the_next_start(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as setup:
        ari = setup.ari
        channel, _ = await setup.joined_call()
        dies(ari)
        crashed = AriApp(CONFIG, 2.0, lambda control: None, connect_stream=ari.connect)
        async with trio.open_nursery() as nursery:
            await nursery.start(crashed.run)
            assert setup.clear()
            assert channel.dialplan == Place()
            assert channel.variables["BRIDGE_END_REASON"] == "internal_error"
            assert channel.variables["BRIDGE_END_DETAIL"] == "the bridge restarted"
            nursery.cancel_scope.cancel()


async def test_who_came_while_a_worker_died_is_left_to_another_one(autojump_clock: trio.testing.MockClock) -> None:
    """The dialplan asks the next worker on `server_draining`; nobody has spoken to this caller yet."""
    async with running() as setup:
        ari = setup.ari
        await setup.joined_call()
        dies(ari)
        late = ari.incoming_call()
        crashed = AriApp(CONFIG, 2.0, lambda control: None, connect_stream=ari.connect)
        async with trio.open_nursery() as nursery:
            await nursery.start(crashed.run)
            assert late.dialplan == Place()
            assert late.variables["BRIDGE_END_REASON"] == "server_draining"
            nursery.cancel_scope.cancel()


async def test_a_caller_who_is_not_listed_yet_is_not_taken_for_gone(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running() as setup:
        _, control = await setup.joined_call()
        answer = {"name": "bridge-1", "channel_ids": [MEDIA], "bridge_ids": [BRIDGE]}
        monkeypatch.setattr(setup.ari, "_application", lambda app: answer)
        with trio.move_on_after(65) as nothing:
            await control.next_event()
        assert nothing.cancelled_caught


async def test_a_caller_who_is_listed_before_it_is_announced_is_not_taken_for_stranded(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running() as setup:
        await trio.sleep(59.9)
        with monkeypatch.context() as patch:
            patch.setattr(setup.ari, "emit", lambda *what, **content: None)
            channel = setup.ari.incoming_call()
        await trio.sleep(0.5)  # the sweep has seen it
        setup.ari.enter(channel)
        await trio.sleep(5)
        assert channel.dialplan is None
        assert len(setup.controls) == 1


async def test_a_caller_who_was_moved_away_is_not_hung_up(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as setup:
        channel, control = await setup.joined_call()
        channel.in_stasis = False  # redirected by AMI; its StasisEnd is still on the way
        await control.release(EndReason.AGENT_HUNG_UP, "")
        assert channel.dialplan is None
        assert setup.clear()


async def test_a_caller_moved_away_while_disconnected_is_told(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as setup:
        channel, control = await setup.joined_call()
        await setup.ari.drop_connection()
        channel.leave(Place("phones", "601", "1"))
        with trio.fail_after(5):
            assert await control.next_event() == ControlHungUp(0, "moved away; that was missed")


async def test_a_media_channel_that_comes_after_its_call_is_hung_up(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as setup:
        with setup.ari.never_answers("DELETE"), setup.ari.delayed_stasis_start(5):
            _, control = await setup.call()
            await control.prepare_media(CALL, "slin16")
            with trio.move_on_after(1):
                await control.release(EndReason.MODEL_UNREACHABLE, "")
        await trio.sleep(6)
        assert MEDIA not in setup.ari.channels


async def test_cancelled_preparation_leaves_the_clearing_to_release(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as setup:
        channel, control = await setup.call()
        with trio.CancelScope() as scope:
            scope.cancel()
            await control.prepare_media(CALL, "slin16")
        await trio.testing.wait_all_tasks_blocked()
        assert setup.ari.bridges.keys() == {BRIDGE}
        await control.release(EndReason.MODEL_UNREACHABLE, "")
        assert setup.clear()
        assert channel.dialplan == Place()


@pytest.mark.parametrize("began_s", [0, 50])
async def test_a_second_process_with_our_app_keeps_its_callers(
    began_s: float, autojump_clock: trio.testing.MockClock
) -> None:
    async with running() as setup:
        await trio.sleep(began_s)  # 50: the next regular sweep falls into the time in which the other holds the app
        taken: list[ChannelControl] = []
        other = AriApp(CONFIG, 2.0, taken.append, connect_stream=setup.ari.connect)
        async with trio.open_nursery() as nursery:
            await nursery.start(other.run)
            channel = setup.ari.incoming_call()
            await trio.sleep(40)  # the first has taken the app back after 30 s, and has swept
            assert setup.app.connected
            assert [control.channel_id for control in taken] == [channel.id]
            assert channel.dialplan is None
            nursery.cancel_scope.cancel()


async def test_other_peoples_bridges_are_left_alone(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as setup:
        other = AriApp(CONFIG, 2.0, lambda control: None, connect_stream=setup.ari.connect)
        async with trio.open_nursery() as nursery:
            await nursery.start(other.run)
            await other.request("POST", "bridges", type="mixing", bridgeId="realtime-bridge-x", name="bridge-2")
            await other.request("POST", "bridges", type="mixing", bridgeId="conference", name="bridge-1")
            await other.request("POST", "bridges", type="mixing", bridgeId="realtime-bridge-y", name="bridge-1")
            await trio.sleep(100)
            # The app was taken back, but what stands there may belong to a call that the other process still has.
            assert set(setup.ari.bridges) == {"realtime-bridge-x", "conference", "realtime-bridge-y"}
            nursery.cancel_scope.cancel()
        await setup.ari.drop_connection()
        await trio.sleep(5)
        assert set(setup.ari.bridges) == {"realtime-bridge-x", "conference"}


async def test_an_answer_of_an_unknown_shape_ends_no_call(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with running() as setup:
        await setup.call()
        request = setup.app.request

        async def strange(method: str, uri: str, body: Mapping[str, Any] | None = None, /, **query: str) -> object:
            return {"strange": True} if method == "GET" else await request(method, uri, body, **query)

        setup.app.request = strange
        await trio.sleep(130)
        assert "looking for leftovers failed" in caplog.text
        assert setup.app.connected
        setup.app.request = request
        assert set(setup.ari.bridges) == set()


async def test_a_defect_in_the_taker_of_calls_returns_the_caller_to_the_dialplan(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with running() as setup:

        def broken(control: ChannelControl) -> None:
            raise LookupError("no such agent")

        setup.app._on_call = broken
        channel = setup.ari.incoming_call()
        await trio.testing.wait_all_tasks_blocked()
        assert channel.dialplan == Place()
        assert channel.variables["BRIDGE_END_REASON"] == "internal_error"
        assert "no such agent" in caplog.text


async def test_without_a_connection_requests_fail_at_once(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as setup:
        _, control = await setup.call()
        await setup.ari.drop_connection()
        await trio.sleep(0.1)
        requests: list[Callable[[], Awaitable[None]]] = [
            lambda: control.prepare_media(CALL, "slin16"),
            lambda: control.transfer("601"),
        ]
        for request in requests:
            with pytest.raises(ControlUnavailable, match=r"no ARI connection to 127\.0\.0\.1:8088"):
                await request()


def test_details_are_made_harmless() -> None:
    assert harmless('a,b "c" ${EXTEN} x;y\nz\0 (d) é') == "a b c EXTEN x y z d é"
    assert harmless("HTTP 401: invalid_api_key") == "HTTP 401: invalid_api_key"
    assert len(harmless("x" * 500)) == 200


def test_the_logger_of_the_library_never_shows_the_password(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    assert not logging.getLogger("bridge.ari.websocket").isEnabledFor(logging.DEBUG)
