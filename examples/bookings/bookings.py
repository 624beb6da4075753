"""A calendar that callers book appointments in, as a Python tool file: `tools = ["bookings.py"]` in `bridge.toml`.

The calendar is a dict here, and gone with the process; put your own in its place.
"""

import datetime
import threading

from bridge import ToolContext, ToolError

HOURS = range(9, 17)
_calendar: dict[datetime.datetime, str] = {}
# Plain functions run in threads: two callers may want the same hour at the same moment.
_lock = threading.Lock()


def free_hours(day: datetime.date) -> list[int]:
    """The full hours at which an appointment is free on a day.

    Args:
        day: Like 2026-12-31.
    """
    if day.weekday() >= 5:
        return []
    return [hour for hour in HOURS if _at(day, hour) not in _calendar]


def book(context: ToolContext, day: datetime.date, hour: int, name: str) -> dict[str, str]:
    """Book an appointment. Say the day and the hour to the caller, and have them confirmed, before you call this.

    Args:
        day: Like 2026-12-31.
        hour: A free hour, as free_hours tells them.
        name: The caller's name.
    """
    with _lock:
        free = free_hours(day)
        if hour not in free:
            # Told to the model in these words, and no traceback in the log: nothing is wrong with the program.
            raise ToolError(f"{hour} o'clock is not free on {day}; free are: {free or 'none'}")
        _calendar[_at(day, hour)] = f"{name}, {context.caller}"
    return {"booked": f"{day} {hour}:00", "name": name}


def _at(day: datetime.date, hour: int) -> datetime.datetime:
    return datetime.datetime.combine(day, datetime.time(hour))
