"""Who asks to come in: what a request says about its key, its model and its dialect, and how it is refused if it must be.

OpenAI refuses in band, after a good upgrade; Azure by HTTP status before it (protocol notes 1.1 and 1.3). One server
plays both: the path of the request says which.
"""

from __future__ import annotations

import json
import urllib.parse
from dataclasses import dataclass

from websockets.http11 import Request

OPENAI_PATH, AZURE_PATH, AZURE_PREVIEW_PATH = "/v1/realtime", "/openai/v1/realtime", "/openai/realtime"
_BETA_SUBPROTOCOL = "openai-beta.realtime-v1"
_KEY_SUBPROTOCOL = "openai-insecure-api-key."


@dataclass(frozen=True, kw_only=True)
class Visitor:
    """One request. `key` is empty where none was shown in a way that is taken at this path."""

    path: str
    model: str
    key: str
    beta: bool
    api_version: str

    @property
    def at_azure(self) -> bool:
        return self.path in (AZURE_PATH, AZURE_PREVIEW_PATH)


def offered_subprotocols(request: Request) -> list[str]:
    """What the client offers in `Sec-WebSocket-Protocol`."""
    headers = request.headers.get_all("Sec-WebSocket-Protocol")
    return [name.strip() for header in headers for name in header.split(",")]


def visitor_of(request: Request, query_key: str) -> Visitor:
    """What a request says. `query_key` names the query parameter that may hold a key; empty: none may."""
    parts = urllib.parse.urlsplit(request.path)
    query = dict(urllib.parse.parse_qsl(parts.query))
    azure = parts.path in (AZURE_PATH, AZURE_PREVIEW_PATH)
    offered = offered_subprotocols(request)
    scheme, _, bearer = request.headers.get("Authorization", "").partition(" ")
    keys = [bearer if scheme.lower() == "bearer" else ""]
    if azure:
        keys.append(request.headers.get("api-key", ""))
    else:
        keys += [name.removeprefix(_KEY_SUBPROTOCOL) for name in offered if name.startswith(_KEY_SUBPROTOCOL)]
        keys.append(query.get(query_key, "") if query_key else "")
    preview = parts.path == AZURE_PREVIEW_PATH
    asks_beta = "OpenAI-Beta" in request.headers or _BETA_SUBPROTOCOL in offered
    return Visitor(
        path=parts.path,
        model=query.get("deployment" if preview else "model", ""),
        key=next((key for key in keys if key), ""),
        beta=preview or (asks_beta and not azure),
        api_version=query.get("api-version", ""),
    )


def http_refusal(visitor: Visitor, key: str, *, beta: bool) -> tuple[int, str]:
    """The status and body with which the upgrade is refused; 0: it is not."""
    if not visitor.at_azure:
        return (0, "") if visitor.path == OPENAI_PATH else (404, "not found\n")
    if not visitor.key or (key and visitor.key != key):
        return 401, _azure("401", "Access denied due to invalid subscription key or wrong API endpoint.")
    if visitor.path == AZURE_PREVIEW_PATH:
        if not beta or not visitor.api_version:
            return 404, _azure("404", "Resource not found")
    elif visitor.api_version:
        return 400, _azure("BadRequest", "API version not supported")
    if not visitor.model:
        return 404, _azure("DeploymentNotFound", "The API deployment for this resource does not exist.")
    return 0, ""


def refusal(visitor: Visitor, key: str, *, beta: bool) -> str:
    """The `error.code` with which a session is refused in band; empty: it is not."""
    if visitor.at_azure:
        return ""
    if not visitor.key or (key and visitor.key != key):
        return "invalid_api_key"
    if visitor.beta and not beta:
        return "beta_api_shape_disabled"
    if not visitor.model:
        return "missing_model"
    if visitor.model.startswith("gpt-4o-"):
        return "" if visitor.beta else "model_not_found"
    return "" if visitor.model.startswith("gpt-realtime") else "invalid_model"


def _azure(code: str, message: str) -> str:
    return json.dumps({"error": {"code": code, "message": message}})
