"""``busy.py HOST:PORT``: asks as often as it gets answers, until it is killed."""

from __future__ import annotations

import socket
import struct
import sys

MANY = 200


def main() -> None:
    host, _, port = sys.argv[1].rpartition(":")
    # ApiVersions v0, without a client id; every answer is as long.
    request = struct.pack(">ihhih", 10, 18, 0, 1, -1)
    with socket.create_connection((host, int(port))) as connection:
        answers = connection.makefile("rb", buffering=1 << 20)
        connection.sendall(request)
        (size,) = struct.unpack(">i", answers.read(4))
        answers.read(size)
        while True:
            connection.sendall(request * MANY)
            answers.read((4 + size) * MANY)


if __name__ == "__main__":
    main()
