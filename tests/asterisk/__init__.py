"""The ring against the real Asterisk: the calls of `tests/test_call.py`, on the wire and in real time."""
