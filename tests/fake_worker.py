"""What a supervisor sees of a worker, without the bridge in it: reports, orders, an exit status. Started as a program.

fake_worker.py FOLDER    FOLDER/NUMBER holds how this worker is to behave; what it does is added to FOLDER/log
"""

from __future__ import annotations

import json
import os
import select
import socket
import sys


def main() -> int:
    number, folder = os.environ["BRIDGE_WORKER"], sys.argv[1]
    try:
        with open(f"{folder}/{number}") as file:  # noqa: PTH123 - pathlib takes longer to import than all the rest
            behaviour = file.read()
    except FileNotFoundError:
        behaviour = ""

    def note(what: str) -> None:
        with open(f"{folder}/log", "a") as file:  # noqa: PTH123
            file.write(f"{number} {what}\n")

    link = socket.socket(fileno=int(os.environ["BRIDGE_SUPERVISOR_FD"]))
    note("starts")
    if behaviour == "misconfigured":
        return 2
    state = {"pid": os.getpid(), "listening": True, "connected": True, "draining": False, "calls": 1}
    if behaviour == "babbles":
        link.sendall(b"no report\n")
    stubborn = behaviour == "does not end its calls"
    while True:
        if behaviour != "babbles":
            link.sendall(json.dumps(state).encode() + b"\n")
        if not select.select([link], [], [], 0.2)[0]:
            continue
        data = link.recv(4096)
        if not data:
            note("is alone")
            return 0
        for line in data.splitlines():
            order = json.loads(line)["order"]
            note(order)
            state["draining"] = True
            if order == "stop" or not stubborn:
                return 0


if __name__ == "__main__":
    sys.exit(main())
