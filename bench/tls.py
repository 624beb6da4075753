"""The Realtime server behind TLS, as the real one is: a certificate for the run, and the server's end of a connection."""

from __future__ import annotations

import socket
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Identity:
    """A self-signed certificate for 127.0.0.1 and its key, as files."""

    certificate: Path
    key: Path

    def server_context(self) -> ssl.SSLContext:
        """What the server needs to prove that it is this one."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        return context


def self_signed(folder: Path) -> Identity:
    """Make a new one in `folder`. Needs the program `openssl`; raises `OSError` or `CalledProcessError`."""
    identity = Identity(folder / "certificate.pem", folder / "key.pem")
    what = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=bench"
    whom = "-addext subjectAltName=IP:127.0.0.1"
    files = ["-keyout", str(identity.key), "-out", str(identity.certificate)]
    subprocess.run(["openssl", *what.split(), *whom.split(), *files], check=True, capture_output=True)
    return identity


class TlsSocket:
    """A server's socket with what `model.ModelEnd` uses of one, and never waiting. The handshake is done by `recv`."""

    def __init__(self, connection: socket.socket, context: ssl.SSLContext) -> None:
        connection.setblocking(False)
        self._tls = context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        self._shaken = False

    def recv(self, size: int) -> bytes:
        """All that has come, as far as it is whole records. Raises `BlockingIOError` when there is none."""
        try:
            if not self._shaken:
                self._tls.do_handshake()
                self._shaken = True
            data = self._tls.recv(size)
            # What is decrypted already makes no socket readable.
            while self._tls.pending():
                data += self._tls.recv(size)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None
        return data

    def send(self, data: bytes | bytearray) -> int:
        """How many bytes were taken. Raises `BlockingIOError` for none; then the same must be sent next."""
        try:
            return self._tls.send(data)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None

    def fileno(self) -> int:
        return self._tls.fileno()

    def setblocking(self, flag: bool) -> None:
        self._tls.setblocking(flag)

    def setsockopt(self, level: int, option: int, value: int) -> None:
        self._tls.setsockopt(level, option, value)

    def close(self) -> None:
        self._tls.close()
