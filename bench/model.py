"""One Realtime session: the server's end of a websocket, its turns, and what the bridge told it.

A turn is a reply of `Talk.reply_s`, generated at 5 x real time in deltas of 200 ms. Replies with an even number are heard
to their end and half a second later the caller speaks; into odd ones he bursts, alternately while they are still being
generated (the server cancels the response) and long after that (only the bridge knows what was heard).
"""

from __future__ import annotations

import json
import random
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

from bench import messages
from bench.records import CallNotes, Reply
from bench.signals import is_silence
from bench.tls import TlsSocket
from bench.websocket import CLOSE, PING, PONG, TEXT, ClientFrame, ClientFrames, server_frame, upgrade_response

At = Callable[[float, Callable[[], None]], None]  # call me at this time (monotonic seconds)

_DELTA_EVERY_S = messages.DELTA_MS / 1000 / 5
_MODEL_BYTES_PER_MS = 48
# The first 8 bytes at an offset that is a multiple of the mask's 4: enough to tell an append from all else its size.
_APPEND_AT = slice(8, 16)
_APPEND_MARK = int.from_bytes(b'{"type":"input_audio_buffer.append"'[_APPEND_AT], "big")
_APPEND_AT_LEAST = 200
_CLICK_LOST_AFTER_S = 3.0


@dataclass(frozen=True, slots=True)
class Talk:
    """How a conversation goes, in seconds."""

    reply_s: tuple[float, float] = (6.0, 8.0)
    pause_s: float = 0.5  # from the end of a reply to the caller's speech
    speech_s: float = 0.6
    think_s: float = 0.3  # from the end of the caller's speech to the next reply
    spread_s: float = 6.0  # the first reply comes that late at most


class ModelEnd:
    """The server of one call. `on_readable` and `on_writable` when the socket says so; timers come through `at`."""

    def __init__(
        self,
        notes: CallNotes,
        connection: socket.socket | TlsSocket,
        at: At,
        stuck: Callable[[ModelEnd], None],
        talk: Talk,
    ) -> None:
        self.notes = notes
        self.socket = connection
        self.pending = bytearray()  # what the socket did not take
        self.closed = False
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setblocking(False)
        self._at, self._stuck, self._talk = at, stuck, talk
        self._random = random.Random(notes.number)
        self._frames: ClientFrames | None = None
        self._head = b""
        # Calls begin with different turns, so barge-ins spread.
        self._next_number = notes.number % 4
        self._generating: Reply | None = None
        self._deltas_left = 0
        self._prefix_bytes = 0  # of an append event, before its base64
        self._ignore_clicks_until = 0.0
        self._clicks_heard = 0

    # Bytes -----------------------------------------------------------------------------------------------------------

    def on_readable(self) -> None:
        """Take what the bridge sent."""
        try:
            data = self.socket.recv(262144)
        except BlockingIOError:
            return
        except OSError as error:
            self._end(str(error))
            return
        if not data:
            self._end("closed without a close frame")
        elif self._frames is None:
            self._upgrade(data)
        else:
            try:
                for frame in self._frames.feed(data):
                    self._frame(frame)
            except ValueError as error:
                self._end(str(error))

    def on_writable(self) -> None:
        """Send what the socket did not take before."""
        data, self.pending = self.pending, bytearray()
        self._send(data)

    def close(self) -> None:
        """Free the socket."""
        self.closed = True
        self.socket.close()

    def _send(self, data: bytes | bytearray) -> None:
        if self.closed:
            return
        if self.pending:
            self.pending += data
            return
        try:
            sent = self.socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._end(str(error))
            return
        if sent < len(data):
            self.pending += data[sent:]
            self._stuck(self)

    def _upgrade(self, data: bytes) -> None:
        self._head += data
        head, found, rest = self._head.partition(b"\r\n\r\n")
        if found:
            self._frames = ClientFrames()
            self._send(upgrade_response(head) + messages.SESSION_CREATED)
            assert not rest, "a client waits for the answer"

    # The bridge speaks -----------------------------------------------------------------------------------------------

    def _frame(self, frame: ClientFrame) -> None:
        masked, key = frame.masked, frame.key
        if frame.opcode == TEXT:
            mark = int.from_bytes(masked[_APPEND_AT], "big") ^ int.from_bytes(key + key, "big")
            if mark == _APPEND_MARK and len(masked) >= _APPEND_AT_LEAST:
                self._append(frame)
            else:
                self._event(json.loads(frame.text()))
        elif frame.opcode == PING:
            self._send(server_frame(frame.text(), PONG))
        elif frame.opcode == CLOSE:
            self._send(server_frame(frame.text(), CLOSE))
            self.close()

    def _append(self, frame: ClientFrame) -> None:
        """Count the audio and look for a click. The base64 is taken to be the last thing in the event."""
        masked = frame.masked
        if not self._prefix_bytes:
            text = frame.text()
            self._prefix_bytes = text.index(b'"audio":"') + 9
            if not text.endswith(b'"}'):
                self.notes.violation(f"an append event that the generator can not read: {text[:80]!r}")
        audio = masked[self._prefix_bytes : -2]
        # Each `=` at the end is a byte less; unmasking the two characters shows them.
        key, end = frame.key, len(masked) - 2
        padding = (masked[end - 1] ^ key[(end - 1) & 3] == 0x3D) + (masked[end - 2] ^ key[(end - 2) & 3] == 0x3D)
        self.notes.appended(len(audio) // 4 * 3 - padding)
        if not is_silence(audio):
            self._click_heard()

    def _click_heard(self) -> None:
        now = time.monotonic()
        if now < self._ignore_clicks_until:
            return  # the rest of a click that was cut in two
        self._ignore_clicks_until = now + 0.2
        clicks = self.notes.clicks
        # They arrive in the order in which they were sent; one that is this late was dropped.
        for index in range(self._clicks_heard, len(clicks)):
            sent_at = clicks[index][0]
            self._clicks_heard = index + 1
            if now - sent_at < _CLICK_LOST_AFTER_S:
                clicks[index] = (sent_at, now)
                return
        self.notes.violation("audio in the model's ear that no caller has sent")

    def _event(self, event: dict[str, object]) -> None:
        match event:
            case {"type": "session.update"}:
                self.notes.established_at = time.monotonic()
                self._send(messages.SESSION_UPDATED)
            case {"type": "response.create"}:
                if self._generating is not None:
                    self.notes.violation("response.create beside an active response")
                elif not self.notes.replies:
                    # Calls that all begin together would go on generating together, and real ones do not: 100 calls
                    # dialled within 3 s overloaded a bridge for a second at a time that had a quarter of its CPU left.
                    self._at(time.monotonic() + self._random.uniform(0, self._talk.spread_s), self._begin_reply)
                else:
                    self._begin_reply()
            case {"type": "conversation.item.truncate", "item_id": str(item), "audio_end_ms": int(ms)}:
                self._truncated(item, ms, messages.item_truncated)
            case {"type": "conversation.item.delete", "item_id": str(item)}:
                self._truncated(item, 0, lambda number, _: messages.item_deleted(number))
            case _:
                self.notes.violation(f"an event that nothing gave reason for: {event.get('type')!r}")

    def _truncated(self, item: str, ms: int, answer: Callable[[int, int], bytes]) -> None:
        reply = next((reply for reply in self.notes.replies if messages.item_id(reply.number) == item), None)
        if reply is None or ms > reply.sent_ms:
            self.notes.violation(f"a truncation of {item} to {ms} ms that the server would refuse")
            return
        reply.truncated_ms = ms
        self._send(answer(reply.number, ms))

    # The server speaks -----------------------------------------------------------------------------------------------

    def _begin_reply(self) -> None:
        if self.closed:
            return
        reply = self._generating = Reply(self._next_number)
        self._next_number += 1
        shortest, longest = self._talk.reply_s
        if not self.notes.replies:
            shortest = min(shortest, 1.0)  # the first one spreads the calls further
        wanted_ms = self._random.uniform(shortest, longest) * 1000
        self._deltas_left = max(1, round((wanted_ms - messages.LAST_DELTA_MS) / messages.DELTA_MS))
        duration_s = (self._deltas_left * messages.DELTA_MS + messages.LAST_DELTA_MS) / 1000
        self.notes.replies.append(reply)
        self._send(messages.reply_begins(reply.number))
        reply.began_at = time.monotonic()
        if reply.number % 2 == 0:
            ends_at = reply.began_at + duration_s + self._talk.pause_s
        else:
            # Generation takes a fifth of the reply's duration.
            share = self._random.uniform(0.1, 0.18) if reply.number % 4 == 1 else self._random.uniform(0.35, 0.7)
            ends_at = reply.began_at + duration_s * share
        self._at(ends_at, lambda: self._caller_speaks(reply))
        self._delta(reply, reply.began_at)

    def _delta(self, reply: Reply, due: float) -> None:
        if self._generating is not reply or self.closed:
            return
        if self._deltas_left:
            self._deltas_left -= 1
            self._send(messages.reply_delta(reply.number))
            reply.sent_ms += messages.DELTA_MS
            due += _DELTA_EVERY_S
            self._at(due, lambda: self._delta(reply, due))
        else:
            self._send(messages.reply_delta(reply.number, messages.LAST_DELTA_MS) + messages.reply_ends(reply.number))
            reply.sent_ms += messages.LAST_DELTA_MS
            reply.generated = True
            self._generating = None

    def _caller_speaks(self, reply: Reply) -> None:
        if self.closed:
            return
        turn = reply.number
        if turn % 2:
            reply.speech_started_at = time.monotonic()
        self._send(messages.speech_started(turn))
        if self._generating is reply:
            self._generating = None
            self._send(messages.reply_cancelled(turn))
        stopped_at = time.monotonic() + self._talk.speech_s
        self._at(stopped_at, lambda: self._send(messages.speech_stopped(turn)))
        self._at(stopped_at + self._talk.think_s, lambda: self._next_turn(reply))

    def _next_turn(self, reply: Reply) -> None:
        reply.over = not self.closed
        self._begin_reply()

    def _end(self, why: str) -> None:
        if not self.closed:
            self.notes.violation(f"the model connection ended: {why}")
            self.close()
