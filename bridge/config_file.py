"""The settings as the command was given them: a file, the environment, and the command line. Read as often as wanted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bridge.config import Loaded, load
from bridge.errors import ConfigError

Fingerprint = tuple[tuple[str, int, int, int] | None, ...]


class ConfigFile:
    """`required`: somebody named the file, so it must be there. All methods but `located` block."""

    def __init__(
        self, path: Path, overrides: Mapping[str, str], environ: Mapping[str, str], *, required: bool
    ) -> None:
        self.path = path
        self._overrides, self._environ, self._required = overrides, environ, required
        self._loaded: Loaded | None = None

    def load(self) -> Loaded:
        """The settings as they are now. Raises `ConfigError`, which names what gave the setting at fault."""
        text = self._text()
        # From now on: a file that served calls does not go away by intention.
        self._required = self._required or bool(text)
        self._loaded = load(
            text, self._environ, self._overrides, source=str(self.path), folder=self.path.resolve().parent
        )
        return self._loaded

    def located(self, error: BaseException) -> str:
        """What to tell of an error: one about a setting names what gave it, whoever found it after `load`."""
        return self._loaded.origins.located(str(error)) if self._loaded is not None else str(error)

    def fingerprint(self) -> Fingerprint:
        """Differs when the file, or one that was read for it, was written since; never raises."""
        return tuple(_stamp(path) for path in (str(self.path), *(self._loaded.files if self._loaded else ())))

    def _text(self) -> str:
        try:
            return self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            if self._required:
                raise ConfigError(f"{self.path}: no such file; give another with --config, or leave it out") from None
            return ""
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{self.path}: cannot be read: {error}") from error


def _stamp(path: str) -> tuple[str, int, int, int] | None:
    try:
        it = Path(path).stat()
    except OSError:
        return None
    return path, it.st_mtime_ns, it.st_size, it.st_ino
