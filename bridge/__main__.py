"""The command `realtime-bridge`: `serve`, `check-config`, `doctor`, `call`, `calls`; and programs of their own."""

from __future__ import annotations

import argparse
import gc
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import msgspec
import trio

from bridge import __version__, call_command, call_tools, calls_command, doctor, findings, supervisor, telemetry
from bridge.config import Config, Loaded, warnings_of
from bridge.config_file import ConfigFile
from bridge.config_shown import shown
from bridge.endpoint import Endpoint
from bridge.errors import BridgeError, ConfigError, RecordsError
from bridge.findings import Finding
from bridge.live_config import Prepared, prepare
from bridge.session import masked, session_of

_log = logging.getLogger("bridge")

# Programs of their own, each with its own --help: nothing in `bridge` imports them.
_PROGRAMS: Mapping[str, tuple[Sequence[str], str]] = {
    "simulate": (("simulators.realtime_server",), "a Realtime server that needs no key, to try things with"),
    "demo": (("simulators", "demo"), "one whole call with the simulated model, talked through (see `make demo`)"),
    "bench": (("bench",), "how many calls this machine holds"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status (2: the configuration or the call of the command is wrong)."""
    arguments, rest = _parser().parse_known_args(argv)
    if program := _PROGRAMS.get(arguments.command):
        # In place of this process, so that signals and the exit status are the program's own.
        os.execv(sys.executable, [sys.executable, "-m", *program[0], *rest])
    if rest:
        _parser().error(f"unrecognized arguments: {' '.join(rest)} (realtime-bridge {arguments.command} --help)")
    if arguments.command == "doctor":
        return _doctor(arguments)
    try:
        settings = _read(arguments)
    except ConfigError as error:
        print(f"realtime-bridge: {error}", file=sys.stderr)
        return 2
    try:
        if arguments.command == "check-config":
            _check_config(settings)
            return 0
        if arguments.command == "call":
            return call_command.run(settings.load().config, arguments)
        if arguments.command == "calls":
            return calls_command.run(settings.load().config, arguments)
        # A worker is this command again. Run from a program (a test), it is not what the interpreter was started with.
        command = () if argv is None else (sys.executable, "-m", "bridge", *argv)
        return _serve(settings, command)
    except BridgeError as error:
        print(f"realtime-bridge: {settings.located(error)}", file=sys.stderr)
        return 1 if isinstance(error, call_command.NotNow | RecordsError) else 2
    except BaseExceptionGroup as group:
        ours = group.subgroup(BridgeError)
        if ours is None:
            raise
        print(f"realtime-bridge: {settings.located(_first(ours))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # `check-config | head`: whoever read has enough. Python would complain once more when it closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _doctor(arguments: argparse.Namespace) -> int:
    """Examine everything and tell it; returns 1 if anything failed."""
    # What the checks find they tell themselves; the modules' own log lines would stand between.
    _log.addHandler(logging.NullHandler())
    _log.propagate = False
    found: list[Finding] = []

    def report(finding: Finding) -> None:
        found.append(finding)
        if not arguments.json:
            print(findings.shown(finding), flush=True)

    try:
        settings = _read(arguments)
        config = settings.load().config
    except ConfigError as error:
        report(doctor.wrong_configuration(str(error)))
    else:
        try:
            trio.run(partial(doctor.examine, config, report, located=settings.located, model=not arguments.no_model))
        except KeyboardInterrupt:
            return 130
    print(findings.as_json(found) if arguments.json else f"\n{findings.summary(found)}")
    return int(findings.failed(found))


def _serve(settings: ConfigFile, command: Sequence[str]) -> int:
    loaded = settings.load()
    config = loaded.config
    endpoint = prepare(config).endpoint
    server = config.server
    telemetry.set_up_logging(server.log_format, worker=server.worker, words=server.log_words)
    if server.worker <= 1:  # the others would say the same
        for warning in [*loaded.warnings, *_warnings(config, endpoint)]:
            _log.warning("%s", warning)
    if server.worker or server.workers == 1:
        _tame_garbage_collector()

    def check() -> None:
        try:
            prepare(settings.load().config)
        except BridgeError as error:
            raise ConfigError(settings.located(error)) from error

    return supervisor.run(config, source=settings, command=command, check=check)


def _check_config(settings: ConfigFile) -> None:
    loaded = settings.load()
    _show(loaded, prepare(loaded.config))


def _show(loaded: Loaded, prepared: Prepared) -> None:
    """Every setting with its origin, the endpoint, and what each agent's session is sent as; warnings go to standard
    error."""
    config = loaded.config
    print(shown(loaded, colours=sys.stdout.isatty() and "NO_COLOR" not in os.environ))
    print(f"\n# the model is reached at {prepared.endpoint}")
    tools = prepared.tools
    for name, agent in config.agents.items():
        print(f"\n# tools of agent {name}, before those of the application:")
        for line in tools.listed(name, agent):
            print(f"#   {line}")
        declared = [*call_tools.tools_of(agent), *tools.tools_for(name, agent).declarations()]
        session = masked(session_of(agent, declared))
        print(f"\n# session of agent {name}, before the tools of the application:")
        print(msgspec.json.format(msgspec.json.encode(session), indent=2).decode())
    warnings = [*loaded.warnings, *_warnings(config, prepared.endpoint)]
    # Last, since all of this is several screens long.
    count = f"{len(warnings)} warning{'s' * (len(warnings) != 1)}" if warnings else "no warnings"
    print(f"\n# no mistakes, {count}", flush=True)
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)


def _warnings(config: Config, endpoint: Endpoint) -> list[str]:
    """What is valid and will most likely not do what is wanted. Each begins with its setting."""
    found = warnings_of(config)
    if endpoint.needs_key:
        found.append(f"realtime.api_key: none is set, and {endpoint.host} refuses calls without; set OPENAI_API_KEY")
    if config.asterisk.enabled and not config.asterisk.password:
        found.append(
            "asterisk.password: none is set, and ARI refuses connections without; set BRIDGE_ARI_PASSWORD (or, for "
            "AudioSocket without ARI, asterisk.enabled = false)"
        )
    return found


def _tame_garbage_collector() -> None:
    """Keep everything that was loaded by now out of collections, and make full ones rare: each stops every call.

    `bench --calls 90,100`: with Python's defaults neither held (lateness p99 166 ms at 90 calls, 0.79 % of a core a
    call), with these both did (3 ms at 100 calls, 0.64 %).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)


def _first(group: BaseExceptionGroup[BridgeError]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="realtime-bridge", description="Puts an OpenAI Realtime voice agent on an Asterisk phone call."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        (
            "serve",
            "take calls until SIGTERM or Ctrl-C, then let the running ones finish; SIGHUP restarts workers in turn",
        ),
        ("check-config", "check the configuration and print every effective setting, secrets hidden"),
        ("doctor", "check Asterisk, the model and this machine, and say what to do about each trouble"),
        ("call", "have the running bridge call somebody, by its control door (docs/outbound.md)"),
    ):
        command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        _add_settings(command)
        if name == "doctor":
            command.add_argument("--no-model", action="store_true", help="leave the model alone")
            command.add_argument("--json", action="store_true", help="what was found as a JSON array")
        if name == "call":
            call_command.add_arguments(command)
    text = "what is kept of ended calls: list, show, sum up, export and prune them (docs/records.md)"
    calls_command.add_commands(
        commands.add_parser("calls", help=text, description=text[0].upper() + text[1:] + "."), _add_settings
    )
    for name, (_, text) in _PROGRAMS.items():
        commands.add_parser(name, help=f"{text}: {name} --help", add_help=False)
    return parser


def _add_settings(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "-c", "--config", metavar="FILE", help="settings (default: bridge.toml in this folder, if there is one)"
    )
    command.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="one setting; wins over all else"
    )


def _read(arguments: argparse.Namespace) -> ConfigFile:
    overrides: dict[str, str] = {}
    for pair in arguments.set:
        key, equals, value = pair.partition("=")
        if not equals or "." not in key:
            raise ConfigError(f"--set {pair}: write it as SECTION.KEY=VALUE, like server.max_calls=10")
        overrides[key] = value
    path = Path(arguments.config or "bridge.toml")
    return ConfigFile(path, overrides, os.environ, required=bool(arguments.config))


if __name__ == "__main__":
    sys.exit(main())
