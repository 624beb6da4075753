"""Recordings by Asterisk, on the mixing bridge of a call: what ARI is asked for.

Measured on 22.10.1:
- The file lies below `astspooldir`/recording. Debian's packages lack that folder and Asterisk does not make it: 500, until
  somebody does. Folders below it are made; a name that is taken gives 409 (`ifExists=fail`).
- Its format `wav` is 8 kHz, `wav16` 16 kHz, and the file's suffix is the format's name. One channel: both sides mixed.
- `pause` takes the time out of the file; `mute` records silence, so that the time line goes on. We mute.
- A bridge that is recorded is mixed (`softmix` instead of `simple_bridge`). Its Recorder channel is not listed with our
  app.
- When the bridge is destroyed the recording is complete and stored, as after `stop`.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, Protocol
from urllib.parse import quote

from bridge.errors import ControlRefused
from bridge.recording_state import RecordingStep


class Request(Protocol):
    """`AriClient.request`."""

    def __call__(self, method: str, uri: str, /, **query: str) -> Awaitable[Any]: ...


async def record(request: Request, bridge_id: str, step: RecordingStep, file: str) -> None:
    """One step of the recording of this bridge; `file` is its name with the format as suffix. Raises `ControlError`."""
    name, _, format = file.rpartition(".")
    live = f"recordings/live/{quote(name, safe='')}"
    match step:
        case RecordingStep.BEGIN:
            options = {"name": name, "format": format, "ifExists": "fail", "beep": "false"}
            try:
                await request("POST", f"bridges/{bridge_id}/record", **options)
            except ControlRefused as error:
                if error.status == 500:
                    raise ControlRefused(
                        f"{error}; is there a folder `recording` in Asterisk's spool folder "
                        "(/var/spool/asterisk/recording) in which Asterisk may write, with room left?",
                        status=error.status,
                    ) from error
                raise
        case RecordingStep.PAUSE:
            await request("POST", f"{live}/mute")
        case RecordingStep.RESUME:
            await request("DELETE", f"{live}/mute")
        case RecordingStep.END:
            # 404: the call is over, its bridge destroyed, and the recording stored with that.
            await _unless_gone(request("POST", f"{live}/stop"))
        case RecordingStep.DECLINE:
            if not await _unless_gone(request("DELETE", live)):
                await _unless_gone(request("DELETE", f"recordings/stored/{quote(name, safe='')}"))
        case RecordingStep.FAIL:
            pass


async def _unless_gone(request: Awaitable[Any]) -> bool:
    """Whether there was something to be ended."""
    try:
        await request
    except ControlRefused as error:
        if error.status != 404:
            raise
        return False
    return True
