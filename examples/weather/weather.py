"""The weather tool of OpenAI's reference client as a Python tool file: `tools = ["weather.py"]` in `bridge.toml`.

Its service here is a fake, so that it works without the internet. With WEATHER_URL it asks a real one of open-meteo.com's
kind: WEATHER_URL=https://api.open-meteo.com/v1/forecast
"""

import os
from typing import Annotated

import httpx
import trio

LIMIT_S = 4.0


async def get_weather(
    lat: Annotated[float, "Latitude"],
    lng: Annotated[float, "Longitude"],
    location: Annotated[str, "Name of the location"],
) -> dict[str, object]:
    """Retrieves the weather for a given lat, lng coordinate pair. Specify a label for the location."""
    url = os.environ.get("WEATHER_URL", "")
    now = await _ask(url, lat, lng) if url else await _fake(lat)
    return {"location": location, **now}


async def _ask(url: str, lat: float, lng: float) -> dict[str, object]:
    wanted: dict[str, str | float] = {"latitude": lat, "longitude": lng, "current": "temperature_2m,wind_speed_10m"}
    async with httpx.AsyncClient(timeout=LIMIT_S) as client:
        answer = await client.get(url, params=wanted)
        answer.raise_for_status()
        current: dict[str, object] = answer.json()["current"]
        return current


async def _fake(lat: float) -> dict[str, object]:
    await trio.sleep(0.1)
    return {"temperature_2m": round(30 - abs(lat) / 2, 1), "wind_speed_10m": 11.5}
