"""Each agent's tools and where they come from: the application's, its tool hook's, its Python files'.

Of two with the same name the later in that order is the agent's: what a profile says is nearer to it than what the program
brings for all agents, and a file can be laid over a hook. The bridge's own tools can not be replaced. Loaded once for
a configuration; a call asks for its registry when it begins and keeps it.
"""

from __future__ import annotations

from collections.abc import Mapping

from bridge import call_tools, webhook
from bridge.agent import Agent
from bridge.errors import ConfigError
from bridge.hook_tools import hook_tools
from bridge.session import declared_functions
from bridge.toml_lines import dotted
from bridge.tool_files import load_tool_file
from bridge.tool_hook import is_name
from bridge.tools import Tool, ToolRegistry
from bridge.webhook_client import WebhookClient


class AgentTools:
    """The tools of the agents of the configuration that is in force. Make one with `load`."""

    def __init__(self, application: ToolRegistry, client: WebhookClient | None) -> None:
        self._application = application
        self._client = client
        self._files: Mapping[str, list[Tool]] = {}

    @classmethod
    def load(
        cls,
        agents: Mapping[str, Agent],
        application: ToolRegistry | None = None,
        client: WebhookClient | None = None,
    ) -> AgentTools:
        """The tools of these agents, as `reload` loads them. `client` asks the tool hooks; without it they can only
        be looked at."""
        tools = cls(application or ToolRegistry(), client)
        tools.reload(agents)
        return tools

    def reload(self, agents: Mapping[str, Agent]) -> None:
        """Run the Python files of all agents, for the calls that begin from now on. Blocks for as long as the files do, so
        it belongs into a thread while there are calls. Raises `ConfigError`, which names the setting, the file and the
        line; nothing has changed then."""
        files: dict[str, list[Tool]] = {}
        for name, agent in agents.items():
            at = dotted(("agents", name))
            for index, file in enumerate(agent.tools):
                place = f"{at}.tools[{index}]"
                files[file] = load_tool_file(file, place)
                for tool in files[file]:
                    _refuse_built_in(tool.name, place, tool.origin)
            for index, it in enumerate(agent.tool_hook.tools):
                _refuse_built_in(it.name, f"{at}.tool_hook.tools[{index}].name")
            try:
                webhook.keys_of(agent.tool_hook.secret)
            except ValueError as error:
                raise ConfigError.at(f"{at}.tool_hook.secret", str(error)) from None
        self._files = files

    def tools_for(self, name: str, agent: Agent) -> ToolRegistry:
        """What a call of this agent may use. A file that the configuration did not name is left out: none is run in
        mid-call."""
        own = self._own(agent)
        return self._application.overlaid(own) if own else self._application

    def _own(self, agent: Agent) -> list[Tool]:
        """What the profile has besides the application's, what replaces something behind that. Functions that its session
        declares, and that nothing else carries out, go to the hook."""
        files = [tool for file in agent.tools for tool in self._files.get(file, ())]
        hook = agent.tool_hook
        if not hook.url:
            return files
        handled = {*call_tools.BUILT_IN, *(it.name for it in [*self._application, *hook.tools, *files])}
        more = [it for it in declared_functions(agent) if it["name"] not in handled and is_name(it["name"])]
        # One of the bridge's names is refused at the start; a profile that was changed for this call must not end it.
        asked = [tool for tool in hook_tools(hook, self._client, more) if tool.name not in call_tools.BUILT_IN]
        return [*asked, *files]

    def listed(self, name: str, agent: Agent) -> list[str]:
        """A line for each tool of the agent, for people: its name, where it comes from, and what it replaces."""
        lines = [f"{tool['name']}: the bridge" for tool in call_tools.declarations(agent)]
        found: dict[str, list[str]] = {}
        for tool in [*self._application, *self._own(agent)]:
            found.setdefault(tool.name, []).append(tool.origin or "the application")
        for tool_name, (*replaced, origin) in found.items():
            over = f" (replaces that of {', '.join(replaced)})" if replaced else ""
            lines.append(f"{tool_name}: {origin}{over}")
        lines += [f"{server.server_label} (MCP): its server, called by the model's" for server in agent.mcp]
        return lines


def _refuse_built_in(name: str, place: str, origin: str = "") -> None:
    if name in call_tools.BUILT_IN:
        where = f"{place}: {origin}" if origin else place
        raise ConfigError(
            f"{where}: the bridge has a tool {name!r} of its own (docs/tools.md); choose another name", place=place
        )
