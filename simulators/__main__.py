"""`python -m simulators demo`: one whole call, talked through."""

from __future__ import annotations

import sys

from simulators import demo

if __name__ == "__main__":
    if sys.argv[1:2] != ["demo"]:
        sys.exit("usage: python -m simulators demo [--help]\n       python -m simulators.realtime_server [--help]")
    sys.exit(demo.main(sys.argv[2:]))
