"""`realtime-bridge doctor`: what must be right before a call can succeed, checked one by one and told in a line each.

    configuration    the file and the environment
    port ... media   Asterisk (`doctor_asterisk`, `doctor_media`)
    model            a session for each agent (`doctor_model`)
    hooks            a message to each URL (`doctor_hooks`)
    records          the database of ended calls (`doctor_records`)
    python ... pacing  this machine (`doctor_host`)

Each check stands alone and tells its trouble as a `Finding`; what can not be tried because of an earlier trouble is told
as skipped. Safe beside a running bridge.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing

import httpx

from bridge import doctor_asterisk, doctor_hooks, doctor_host, doctor_model, hook_bodies
from bridge.config import Config, warnings_of
from bridge.doctor_media import Listen, listen
from bridge.endpoint import check_agents, endpoint_of
from bridge.errors import ConfigError
from bridge.findings import Finding, fail, ok, skipped, warn
from bridge.prices import check_budgets, load_prices
from bridge.realtime_client import ConnectStream
from bridge.sound_files import load_sounds
from bridge.webhook_client import WebhookClient

Report = Callable[[Finding], None]


def wrong_configuration(told: str) -> Finding:
    """For settings that could not be loaded; `told` names the line and the remedy."""
    return fail("configuration", told, "realtime-bridge check-config shows what is in force once this is mended")


async def examine(
    config: Config,
    report: Report,
    *,
    located: Callable[[BaseException], str] = str,
    model: bool = True,
    connect_ari: ConnectStream | None = None,
    connect_model: ConnectStream | None = None,
    http: httpx.AsyncBaseTransport | None = None,
    listen: Listen = listen,
    pacing_s: float | None = None,
) -> None:
    """All checks, each given to `report` when it is done; never raises for what it finds.

    `located` tells of an error about a setting where that stands. `model=False` leaves the model alone. The rest is for
    tests: byte streams instead of the network.
    """
    try:
        load_sounds(config.agents)
        hook_bodies.check(config)
        check_budgets(config, load_prices(config.realtime.prices))
        endpoint = endpoint_of(config.realtime)
        check_agents(endpoint, config.agents)
    except ConfigError as error:
        report(wrong_configuration(located(error)))
        return
    for warning in warnings_of(config):
        report(warn("configuration", warning, "see bridge.toml, which explains every key"))
    workers = config.server.workers
    text = f"agents: {', '.join(config.agents)}; model at {endpoint}"
    if workers > 1:
        config = config.for_worker(1)
        text += f". Worker 1 of {workers} is tried; another one: --set server.worker=2"
    report(ok("configuration", text))
    await doctor_asterisk.check_asterisk(
        config.asterisk, config.server, report, connect_ari=connect_ari, listen=listen
    )
    if model:
        await doctor_model.check_model(
            config.realtime, endpoint, config.agents, config.limits, report, connect_stream=connect_model
        )
    else:
        report(skipped("model", "not tried: --no-model"))
    async with aclosing(WebhookClient(http)) as client:
        await doctor_hooks.check_hooks(config.hooks, config.agents, report, client)
    # Imported here: SQLAlchemy takes 0.4 s, and every command imports the doctor.
    from bridge.doctor_records import check_records  # noqa: PLC0415

    report(await check_records(config))
    report(doctor_host.check_python())
    report(doctor_host.check_files(config.server.max_calls))
    report(doctor_host.check_memory(config.server.max_calls * workers))
    report(await doctor_host.check_pacing(doctor_host.PACING_S if pacing_s is None else pacing_s))
