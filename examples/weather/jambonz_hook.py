"""The weather tool of jambonz' example application as an HTTP service, with the standard library alone.

    python examples/weather/jambonz_hook.py [PORT]

It gets `tool_call_id`, `name` and `args`, and answers with the envelope that a jambonz application sends: a
`conversation.item.create` around a `function_call_output`. The weather is made up.
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PLACES = {"chicago": 4.0, "oslo": -3.0, "rome": 19.0}  # degrees Celsius


def get_weather(location: str, scale: str) -> dict[str, Any]:
    celsius = PLACES.get(location.lower())
    if celsius is None:
        return {"error": "location_not_found"}
    degrees = celsius if scale == "celsius" else celsius * 9 / 5 + 32
    return {"current": {"temperature_2m": degrees, "unit": scale, "sky": "hail"}}


def on_tool_call(event: dict[str, Any]) -> dict[str, Any]:
    """jambonz' onToolCall: the answer to one call of a tool."""
    output = get_weather(**event["args"])
    item = {"type": "function_call_output", "call_id": event["tool_call_id"], "output": output}
    return {"type": "conversation.item.create", "item": item}


class Hook(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        answer = json.dumps(on_tool_call(json.loads(body))).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)


if __name__ == "__main__":
    with ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1]) if sys.argv[1:] else 3002), Hook) as server:
        print(f"listening on port {server.server_port}", flush=True)
        server.serve_forever()
