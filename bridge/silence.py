"""A caller who says nothing: prompted so often, then told goodbye, whoever counts the seconds. Pure.

    silence of both sides     prompt_s    prompt_s    prompt_s
    -------------------------|PROMPT-----|PROMPT-----|GOODBYE         (prompts = 2)
    -------------------------------------------------------- end_s ---|END

Where the server prompts by itself (`turn_detection.idle_timeout_ms`), it counts the seconds and we count its prompts: the
one too many becomes the goodbye. Never both. Only what the caller does begins the ladder anew; END comes when nothing
helped, not even the goodbye.
"""

from __future__ import annotations

import enum


class Rung(enum.Enum):
    """What a silence leads to."""

    PROMPT = "the agent asks whether the caller is there"
    GOODBYE = "the agent takes leave"
    END = "the call ends"


class Silence:
    """One caller's silences. `prompt_s` 0: nobody prompts but the server. `count`: prompts since the caller was
    last heard."""

    def __init__(self, prompt_s: float, prompts: int, end_s: float) -> None:
        self._prompt_s = prompt_s
        self._prompts = prompts
        self._end_s = end_s
        self.count = 0

    def broken(self) -> None:
        """The caller did something."""
        self.count = 0

    def prompted(self) -> Rung:
        """There is a prompt to be given, or the server is about to give it: what it is to be."""
        self.count += 1
        return Rung.PROMPT if self.count <= self._prompts else Rung.GOODBYE

    def lasted(self, seconds: float, *, server_prompts: bool) -> Rung | None:
        """Both sides have been silent for so long, since the last prompt at most: what that leads to."""
        if seconds >= self._end_s:
            return Rung.END
        if self._prompt_s and not server_prompts and seconds >= self._prompt_s:
            return self.prompted()
        return None
