"""An OpenAI Realtime voice agent on an Asterisk phone call.

The rooms of the house, in the order that data flows (`docs/design.md` has the reasons):

* words: `errors`, `config`
* protocols without I/O: `audiosocket`, `audio`, `playout`, `realtime`, `ending`
* decisions without I/O: `history`, `conversation`, `leg`
* shells, on trio: `audiosocket_leg`, `media_clock`, `realtime_client`, `ari_control`, `tools`, `telemetry`
* one call: `switchboard`, `call`; one process: `server`, `__main__`
"""

__version__ = "0.1.0"
