"""The settings as the command was given them: a file, the environment, and the command line. Read as often as wanted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bridge.config import Config, Loaded, load
from bridge.errors import ConfigError

Stamps = Mapping[str, tuple[int, int, int] | None]
"""By file: when it was written (ns), how long it is, and which one it is; None: there is none."""


class ConfigFile:
    """`required`: somebody named the file, so it must be there. `load` and `stamps` block."""

    def __init__(
        self, path: Path, overrides: Mapping[str, str], environ: Mapping[str, str], *, required: bool
    ) -> None:
        self.path = path
        self._overrides, self._environ, self._required = overrides, environ, required
        self._loaded: Loaded | None = None
        self._files: list[str] = []
        self._stamps: Stamps = {}

    def load(self) -> Loaded:
        """The settings as they are now. Raises `ConfigError`, which names what gave the setting at fault."""
        before = self.stamps()
        self._stamps = before
        text = self._text()
        if self._required and self._loaded is not None and not text.strip():
            # What a full disk leaves behind is valid: it means all defaults.
            raise ConfigError(f"{self.path}: is empty now; if all defaults are wanted, say so in a comment")
        # From now on: a file that served calls does not go away by intention.
        self._required = self._required or bool(text)
        loaded = load(text, self._environ, self._overrides, source=str(self.path), folder=self.path.resolve().parent)
        self._loaded, self._files = loaded, loaded.files
        # One that was written between the two looks is to be seen as changed.
        self._stamps = {**self.stamps(), **{path: it for path, it in before.items() if path in self._watched()}}
        return loaded

    def loaded_stamps(self) -> Stamps:
        """`stamps` as they were before the last `load`."""
        return self._stamps

    def stamps(self) -> Stamps:
        """Of the file and of all that the settings name; changes when one is written. Never raises."""
        return {path: _stamp(path) for path in self._watched()}

    def _watched(self) -> list[str]:
        return [str(self.path), *self._files]

    def common(self) -> Config | None:
        """The settings of the last `load`, for all workers; None: nothing was loaded."""
        return self._loaded.common if self._loaded is not None else None

    def warnings(self) -> list[str]:
        """Of the last `load`."""
        return self._loaded.warnings if self._loaded is not None else []

    def located(self, error: BaseException) -> str:
        """What to tell of an error: one about a setting names what gave it, whoever found it after `load`."""
        return self._loaded.origins.located(str(error)) if self._loaded is not None else str(error)

    def _text(self) -> str:
        try:
            return self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            if self._required:
                raise ConfigError(f"{self.path}: no such file; give another with --config, or leave it out") from None
            return ""
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{self.path}: cannot be read: {error}") from error


def _stamp(path: str) -> tuple[int, int, int] | None:
    try:
        it = Path(path).stat()
    except (OSError, ValueError):  # ValueError: no name of a file at all
        return None
    return it.st_mtime_ns, it.st_size, it.st_ino
