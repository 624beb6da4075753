"""Strict stand-ins for everything that the bridge talks to: a Realtime server, Asterisk's two faces, and a caller.

They refuse what the real ones refuse, run in virtual time as well as on real sockets, and may import `bridge` layers 0
to 2 only (`tests/test_layers.py`). What was only tried against them has not been tried against the real thing.
"""
