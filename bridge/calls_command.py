"""`realtime-bridge calls list|show|totals|export|prune`: what is kept of ended calls, read from its database.

Exit status: 0; 1, no such call, or the database does not answer; 2, something is to be changed first.
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import msgspec

from bridge import call_pages
from bridge.config import Config
from bridge.ending import EndReason
from bridge.errors import ConfigError, RecordsAway, RecordsError

if TYPE_CHECKING:
    from bridge.record_store import CallFilter, RecordStore

# People wait longer than calls do.
_PATIENCE_S = 30.0
_FILE_MODE = 0o640


def add_commands(command: argparse.ArgumentParser, add_settings: Callable[[argparse.ArgumentParser], None]) -> None:
    """What `calls` can do; `add_settings` adds the arguments that all commands take."""
    commands = command.add_subparsers(dest="calls", required=True, metavar="COMMAND")

    def add(name: str, text: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        add_settings(made)
        return made

    listing = add("list", "the newest calls, one line each")
    _add_filters(listing)
    listing.add_argument("--limit", type=int, default=20, metavar="N", help="how many (default: 20)")
    listing.add_argument("--json", action="store_true", help="as a JSON array")
    show = add("show", "one call: facts, what was said, tools, times, cost")
    show.add_argument(
        "id", metavar="ID", nargs="?", default="", help="its id, or how that begins (default: the newest)"
    )
    show.add_argument("--json", action="store_true", help="as a JSON object")
    totals = add("totals", "how many calls, minutes and dollars, by day, agent, number or reason")
    _add_filters(totals)
    totals.add_argument(
        "--by",
        default="day",
        metavar="WHAT",
        help=f"{', '.join(call_pages.GROUPS)}, or several: day,agent (default: day)",
    )
    totals.add_argument("--json", action="store_true", help="as a JSON array; its last entry is of all")
    export = add("export", "all calls with everything that is kept, the oldest first")
    _add_filters(export)
    export.add_argument(
        "--format", choices=("jsonl", "csv"), default="jsonl",
        help="jsonl: one object a line, with everything; csv: a line of figures a call (default: jsonl)",
    )  # fmt: skip
    export.add_argument("-o", "--output", metavar="FILE", default="-", help="where to (default: standard output)")
    prune = add("prune", "delete what is older than its retention_days now, recordings too; the bridge does it daily")
    prune.add_argument("--dry-run", action="store_true", help="only say how many calls that would be")


def _add_filters(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--since", default="", metavar="TIME", help=f"those that began then or later: {call_pages.TIMES}"
    )
    command.add_argument("--until", default="", metavar="TIME", help="those that began before")
    command.add_argument("--agent", default="", metavar="NAME", help="those of this agent")
    command.add_argument("--caller", default="", metavar="NUMBER", help="a number of either side, or a part of it")
    command.add_argument("--reason", default="", metavar="REASON", help="how they ended, such as caller_hung_up")


def run(config: Config, arguments: argparse.Namespace) -> int:
    """Carry out the command; returns the exit status. Raises `ConfigError`, and `RecordsError` for a database that does
    not answer."""
    commands = {"list": _list, "show": _show, "totals": _totals, "export": _export, "prune": _prune}
    carry_out = commands[arguments.calls]
    try:
        with _store(config) as store:
            status = carry_out(config, store, arguments)
            sys.stdout.flush()
    except BrokenPipeError:  # `| head` has seen enough; the interpreter would complain when it flushes
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    except RecordsAway as error:
        raise RecordsError(
            f"{error}; see that the database runs, lets this user in, and stands right in records.url "
            "(BRIDGE_RECORDS_URL). Calls that end meanwhile are kept in server.data_dir"
        ) from error
    return status


@contextmanager
def _store(config: Config) -> Iterator[RecordStore]:
    # SQLAlchemy takes 0.4 s: not from every other command.
    from bridge.record_database import RecordDatabase, url_of  # noqa: PLC0415
    from bridge.record_store import RecordStore  # noqa: PLC0415

    if not config.records.url:
        raise ConfigError("records.url: is empty, so no records of calls are kept", place="records.url")
    database = RecordDatabase(url_of(config.records.url, config.server.data_dir), patience_s=_PATIENCE_S)
    try:
        if not database.look():
            raise RecordsError(
                f"{database.name}: there are no calls yet; the bridge makes it when it is started. Is "
                "this the bridge's folder (its bridge.toml: --config)?"
            )
        waiting = sum(1 for _ in (Path(config.server.data_dir) / "records").glob("[0-9]*/[0-9]*.json"))
        if waiting:
            print(f"note: the records of {waiting} more calls wait on disk for the database", file=sys.stderr)
        yield RecordStore(database)
    finally:
        database.close()


def _filter(config: Config, arguments: argparse.Namespace) -> CallFilter:
    from bridge.record_store import CallFilter  # noqa: PLC0415

    now_s = time.time()

    def at(option: str, text: str) -> float | None:
        return call_pages.time_of(text, now_s, option) if text else None

    if arguments.reason and arguments.reason not in set(EndReason):
        raise ConfigError(f"--reason {arguments.reason}: must be one of {', '.join(sorted(EndReason))}")
    return CallFilter(
        since_s=at("--since", arguments.since),
        until_s=at("--until", arguments.until),
        agent=arguments.agent,
        party=arguments.caller,
        reason=arguments.reason,
    )


def _list(config: Config, store: RecordStore, arguments: argparse.Namespace) -> int:
    if arguments.limit < 1:
        raise ConfigError(f"--limit {arguments.limit}: must be at least 1")
    # One more, to know whether there are more.
    found = store.newest(_filter(config, arguments), arguments.limit + 1)
    shown = found[: arguments.limit]
    if arguments.json:
        print(_json([call_pages.plain(call) for call in shown]))
        return 0
    if not shown:
        print("no calls", file=sys.stderr)
        return 0
    print("\n".join(call_pages.table(shown)))
    if len(found) > len(shown):
        print(f"({len(shown)} newest; --limit for more)", file=sys.stderr)
    return 0


def _show(_config: Config, store: RecordStore, arguments: argparse.Namespace) -> int:
    found = store.starting_with(arguments.id, limit=10 if arguments.id else 1)
    if not found and not arguments.id:
        raise RecordsError("no call has ended yet")
    if not found:
        raise RecordsError(f"no call's id begins with {arguments.id}; `realtime-bridge calls list` has the newest")
    if len(found) > 1:
        print(f"several calls' ids begin with {arguments.id}:", file=sys.stderr)
        print("\n".join(f"{line}  {call_id}" for line, call_id in _several(found)), file=sys.stderr)
        if len({call["call_id"] for call in found}) > 1:
            return 1
        print("the newest of them:", file=sys.stderr)
    call = store.whole(found[0])
    if arguments.json:
        print(_json(call_pages.whole(call)))
    else:
        print("\n".join(call_pages.page(call, min(shutil.get_terminal_size((100, 24)).columns, 120))))
    return 0


def _several(found: list[dict[str, object]]) -> Iterator[tuple[str, object]]:
    heading, *lines = call_pages.table(found)
    yield heading, "whole id"
    yield from zip(lines, (call["call_id"] for call in found), strict=True)


def _totals(config: Config, store: RecordStore, arguments: argparse.Namespace) -> int:
    by = arguments.by.split(",")
    for name in by:
        if name not in call_pages.GROUPS:
            raise ConfigError(f"--by {arguments.by}: must be of {', '.join(call_pages.GROUPS)}; several as day,agent")
    rows = call_pages.totals(store.few_facts(_filter(config, arguments)), by)
    if arguments.json:
        print(_json(rows))
    elif rows:
        print("\n".join(call_pages.totals_table(rows, by)))
    else:
        print("no calls", file=sys.stderr)
    return 0


def _export(config: Config, store: RecordStore, arguments: argparse.Namespace) -> int:
    wanted = _filter(config, arguments)
    if arguments.output == "-":
        _write_all(store, wanted, arguments.format, sys.stdout)
        return 0
    try:
        number = os.open(arguments.output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _FILE_MODE)
        with open(number, "w", encoding="utf-8", newline="") as file:  # noqa: PTH123 - its mode is given above
            count = _write_all(store, wanted, arguments.format, file)
    except OSError as error:
        raise ConfigError(f"--output {arguments.output}: {error.strerror or error}") from error
    print(f"{count} calls written to {arguments.output}", file=sys.stderr)
    return 0


def _write_all(store: RecordStore, wanted: CallFilter, form: str, file: TextIO) -> int:
    """All calls to an open file, as they are read; returns how many."""
    count = 0
    lines = csv.writer(file, lineterminator="\n")
    for call in store.each(wanted):
        if form == "csv":
            if not count:
                lines.writerow(call_pages.plain(call.call))
            lines.writerow(call_pages.cells(call.call))
        else:
            file.write(f"{msgspec.json.encode(call_pages.whole(call)).decode()}\n")
        count += 1
    return count


def _prune(config: Config, store: RecordStore, arguments: argparse.Namespace) -> int:
    from bridge.record_retention import keeping_of  # noqa: PLC0415

    keeping = keeping_of(config)
    if arguments.dry_run:
        print(f"{store.count_too_old(keeping, time.time())} calls are older than they may be; none was deleted")
        return 0
    done = store.prune(keeping, time.time())
    waiting = f"; {done.waiting} wait until their recordings can be deleted" if done.waiting else ""
    print(f"{done.calls} calls and {done.files} recordings deleted{waiting}")
    if not done.calls and not any(keeping.days_of_agent.values()):
        print("records.retention_days is 0: calls are kept for ever", file=sys.stderr)
    return 0


def _json(value: object) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
