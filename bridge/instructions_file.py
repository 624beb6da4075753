"""An agent's instructions from a file of their own, `agents.NAME.instructions_file`: long ones do not belong in a table."""

from __future__ import annotations

from pathlib import Path

from bridge.errors import ConfigError

# No prompt is as long; whoever names a recording or a device by mistake is told so instead of sending it to the model.
MOST_BYTES = 1_000_000


def read_instructions(path: str) -> str:
    """The text of the file, without blank lines at either end. Blocks. Raises `ConfigError`, whose message is the remedy
    alone."""
    try:
        with Path(path).open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file (paths begin at the folder of the settings' file)") from None
    except (OSError, ValueError) as error:  # ValueError: no name of a file at all
        raise ConfigError(f"{path!r}: cannot be read: {getattr(error, 'strerror', '') or error}") from error
    if len(data) > MOST_BYTES:
        raise ConfigError(f"{path}: has more than {MOST_BYTES} bytes; is it the right file?")
    try:
        text = data.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    if not text:
        raise ConfigError(f"{path}: is empty; write what the agent is to know and do, or leave instructions_file out")
    return text
