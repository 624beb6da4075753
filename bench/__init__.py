"""A load tool: how many calls does one bridge process hold, and how well? `python -m bench --help`, `bench/README.md`.

cli         arguments, the steps, the search for the largest number that holds
step        one step: a fresh bridge process, N calls, a window of measurement, one report
process     the bridge as a process of its own on a CPU of its own, and what /proc says about it
generator   all callers and the Realtime server in one event loop, on another CPU
caller      one caller's end of an AudioSocket stream
model       one Realtime session, with replies that tell who they are
tls         a certificate, and the server's end of a TLS connection
signals     the test audio: levels, clicks, and how to find them again          (pure)
websocket   frames of a websocket server, as little as is needed                 (pure)
messages    the server's messages, made once for all calls                       (pure)
figures     percentiles, the 20 ms grid, the report and its table                (pure)
plot        the report as an SVG                                                 (pure)
"""
