"""An OpenAI Realtime voice agent on an Asterisk phone call.

The rooms of the house, in the order that data flows (`docs/design.md` has the reasons):

* words: `errors`, `config`, `mcp_servers`
* protocols without I/O: `audiosocket`, `audio`, `playout`, `realtime`, `endpoint`, `dialect`, `ending`, `sounds`,
  `tool_schema`, `mcp`, `realtime_mcp`
* decisions without I/O: `history`, `call_tools`, `dialogue`, `conversation`, `leg`, `patience`
* shells, on trio: `audiosocket_leg`, `media_clock`, `realtime_client`, `ari_client`, `ari_control`, `tools`,
  `telemetry`, `sound_files`
* one call: `switchboard`, `call`; one process: `server`, `__main__`

"Protocol sheet" and section numbers mean `docs/realtime-protocol.md`, numbers like 5.13 `docs/field-reports.md`.
"""

__version__ = "0.1.0"
