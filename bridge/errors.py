"""Every way to fail, as our own types. Each says whose fault it was, so that nobody has to guess.

    BridgeError
    |- ConfigError            the operator: a setting is wrong; the message names file, key and remedy
    |  `- SessionAway             an application: it asked for something at a time when there is no session
    |- MediaError             the far end of the media connection (Asterisk's AudioSocket)
    |  |- MediaProtocolError      it sent what the protocol does not allow
    |  `- MediaLost               the connection broke (reset), or no caller audio came for too long
    |- ModelError             the Realtime server
    |  |- ModelUnreachable        no connection, no session within the limit, HTTP 429/5xx
    |  |- ModelRejected           it refused us: key, model, quota or configuration; trying again is useless
    |  |- ModelLost               an established session ended, however politely
    |  |- ResponseFailed          one response failed; the session goes on
    |  |- RequestRefused          it refused one thing that was asked; the session goes on
    |  `- ModelProtocolError      it sent what the protocol does not allow
    |- ToolError              a tool could not do what the model asked: the message is told to the model
    |- RecordsError           the database of records: the call's record waits on disk
    |  |- RecordsAway             it does not answer, is locked, full or not ours to write; another try may succeed
    |  `- RecordsRefused          it will not have this one record, however often it is asked
    |- GatewayError           a client of `/realtime`: it sent what can not be done; the session goes on
    |- RecordingError         the disk (or whoever else keeps the recording): the call goes on without it
    |- WebhookError           the operator's own HTTP service
    |  |- WebhookUnreachable      no connection, no answer in time, HTTP 408/425/429/5xx: another try may succeed
    |  `- WebhookRefused          it answered what another try does not change: another status, or what we can not use
    |- SpoolError             the disk: what was to be delivered later could not be kept, or not be read again
    `- ControlError           Asterisk's control interface (ARI)
       |- ControlUnavailable      no connection, or this call has no control (plain AudioSocket)
       |- ControlRefused          Asterisk answered a request with an error status
       |- ChannelUnknown          whoever named a channel: Asterisk has none of that name
       `- ChannelBusy             whoever named a channel: it is there, and can not be had

Nothing outside this module raises a library's exception across a layer: shells translate at the boundary.
"""

from __future__ import annotations


class BridgeError(Exception):
    """Base of all our errors. `str(error)` is one line for a log; never holds a secret."""


class ConfigError(BridgeError):
    """A setting is wrong. The message names where it stands, the key, and what to do.

    `place` is the key alone, like `agents.sales.session.audio.output.speed`; empty where no single key is at fault.
    """

    def __init__(self, message: str, *, place: str = "") -> None:
        super().__init__(message)
        self.place = place

    @classmethod
    def at(cls, place: str, remedy: str) -> ConfigError:
        """What is wrong at this key, which the message begins with."""
        return cls(f"{place}: {remedy}", place=place)


class SessionAway(ConfigError):
    """What an application wants of the model's session can not be done now: no session stands. Later it may."""


class MediaError(BridgeError):
    """The media connection of a call failed."""


class MediaProtocolError(MediaError):
    """The far end sent what AudioSocket does not allow; the stream can not be trusted from here on."""


class MediaLost(MediaError):
    """The media connection broke without a proper end, or went silent."""


class ModelError(BridgeError):
    """The Realtime server, or the way to it, failed.

    `code` is the server's own word where it gave one (`error.code`, an HTTP status, or a websocket close code).
    """

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.code = code


class ModelUnreachable(ModelError):
    """No session could be opened; another try may succeed."""


class ModelRejected(ModelError):
    """The server refused us for a reason that another try does not change."""


class ModelLost(ModelError):
    """A session that had been established ended; a clean close is a loss too, since only we end calls."""


class ResponseFailed(ModelError):
    """One response ended without an answer; the session goes on. For `bridge.open_session`."""


class RequestRefused(ModelError):
    """The server refused one thing that was asked of it; the session goes on. For `bridge.open_session`."""


class ModelProtocolError(ModelError):
    """The server sent what the Realtime protocol does not allow."""


class ToolError(BridgeError):
    """A tool could not do what it was asked for. The message is told to the model as it is, and logged without a traceback;
    any other exception of a tool is logged as a defect of the tool."""


class RecordsError(BridgeError):
    """The database of records did not do what it was asked. Holds nothing of a record."""


class RecordsAway(RecordsError):
    """It can not be had now: no connection, locked, disk full, no right to its tables."""


class RecordsRefused(RecordsError):
    """It refuses what it was given; another try is useless."""


class GatewayError(BridgeError):
    """A client of `/realtime` wants what can not be done. `code` is one of `gateway_messages.CODES`."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class RecordingError(BridgeError):
    """The recording of a call can not go on: disk full, folder not writable, file taken away."""


class WebhookError(BridgeError):
    """A request to a service of the operator's failed. `status` is HTTP's where there was an answer."""

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class WebhookUnreachable(WebhookError):
    """No usable answer; another try may succeed, not before `retry_after_s` where the service asked for that."""

    def __init__(self, message: str, *, status: int | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message, status=status)
        self.retry_after_s = retry_after_s


class WebhookRefused(WebhookError):
    """The service answered, and would answer the same again."""


class SpoolError(BridgeError):
    """What was to be kept on disk for later could not be: full, not writable, no space left."""


class ControlError(BridgeError):
    """Call control through ARI failed."""


class ControlUnavailable(ControlError):
    """There is no way to control this channel now."""


class ControlRefused(ControlError):
    """Asterisk answered a request with an error `status` (HTTP numbers; 404: the channel is gone)."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class ChannelUnknown(ControlError):
    """Asterisk has no such channel."""


class ChannelBusy(ControlError):
    """A channel is somebody else's now; the message says what to do."""
