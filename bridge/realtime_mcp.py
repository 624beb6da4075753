"""The part of the Realtime vocabulary that is about MCP: tools that the Realtime server itself calls (section 3.8).

The server fetches each MCP server's list of tools when the session is configured, calls them without us, and goes on
speaking by itself. We hear of it, and are asked first where an approval is required.
"""

from __future__ import annotations

import msgspec


class McpError(msgspec.Struct, frozen=True):
    """Why an MCP call failed. `type`: `protocol_error`, `tool_execution_error` or `http_error`."""

    type: str | None = None
    code: str | int | None = None
    message: str | None = None


class McpToolInfo(msgspec.Struct, frozen=True):
    """One tool in an `mcp_list_tools` item."""

    name: str = ""
    description: str | None = None


class McpListing(msgspec.Struct, frozen=True, tag="mcp_list_tools.in_progress"):
    """A server's tools are being fetched. Until they are there, a response with `tool_choice` "required" fails.

    Which server it is says the item of this id, of type `mcp_list_tools`.
    """

    item_id: str = ""


class McpListed(msgspec.Struct, frozen=True, tag="mcp_list_tools.completed"):
    """The model knows the tools of one server now; the item of this id lists them."""

    item_id: str = ""


class McpListFailed(msgspec.Struct, frozen=True, tag="mcp_list_tools.failed"):
    """A server's tools could not be fetched (address, authorization): the session goes on without them."""

    item_id: str = ""


class McpCallStarted(msgspec.Struct, frozen=True, tag="response.mcp_call.in_progress"):
    """The Realtime server is calling a tool. Nothing else may come for as long as the tool takes."""

    item_id: str = ""


class McpCallCompleted(msgspec.Struct, frozen=True, tag="response.mcp_call.completed"):
    """The tool answered; its output is in the `mcp_call` item of this id."""

    item_id: str = ""


class McpCallFailed(msgspec.Struct, frozen=True, tag="response.mcp_call.failed"):
    """The tool failed; why is in the `mcp_call` item of this id, and the model is told by the server."""

    item_id: str = ""


McpEvent = McpListing | McpListed | McpListFailed | McpCallStarted | McpCallCompleted | McpCallFailed
