"""A service that looks orders up for the agent, as a tool hook with signed requests; with the standard library alone.

    ORDERS_SECRET=any-long-text python examples/orders/service.py [PORT]

It answers with plain JSON, which is the tool's output.
"""

import base64
import hashlib
import hmac
import json
import os
import sys
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ORDERS = {"4711": "on its way, arrives tomorrow", "4712": "in the oven"}
TOO_OLD_S = 300


def is_genuine(secret: str, headers: Mapping[str, str], body: bytes, now: float) -> bool:
    """Whether a request was signed with our secret, and not long ago (Standard Webhooks; a secret without "whsec_")."""
    message_id, at = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not at.isdecimal() or abs(now - int(at)) > TOO_OLD_S:
        return False
    digest = hmac.digest(secret.encode(), f"{message_id}.{at}.".encode() + body, hashlib.sha256)
    wanted = "v1," + base64.b64encode(digest).decode()
    return any(hmac.compare_digest(wanted, it) for it in headers.get("webhook-signature", "").split())


def answer(secret: str, headers: Mapping[str, str], body: bytes, now: float) -> tuple[int, Any]:
    """Status and JSON for one request."""
    if not is_genuine(secret, headers, body, now):
        return 401, {"error": "the signature is wrong"}
    request = json.loads(body)
    if request["name"] != "order_status":
        return 404, {"error": "no such tool"}
    number = request["args"].get("number")
    if not isinstance(number, str):
        return 400, {"error": "number is missing"}
    # What the model is to tell the caller comes with status 200; anything else says that the service itself failed.
    return 200, {"number": number, "state": ORDERS.get(number, "there is no order of this number")}


class Service(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        status, told = answer(os.environ["ORDERS_SECRET"], headers, body, time.time())
        content = json.dumps(told).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


if __name__ == "__main__":
    with ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1]) if sys.argv[1:] else 3003), Service) as server:
        print(f"listening on port {server.server_port}", flush=True)
        server.serve_forever()
