"""Messages off a ZeroMQ socket, a run at a time.

Each receipt gives the interpreter up for a moment, too short for the threads
that wait for it, and makes them begin to wait anew: who receives and works by
turns keeps all others out. So a run is received first, and worked on then.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

import zmq

from exporter.kv.limits import MOST_FRAMES, RUN_BYTES

__all__ = ["receive"]

_RUN: Final = 256


def receive(socket: zmq.Socket[bytes]) -> list[list[bytes]]:
    """Return the frames of each message that is there, up to a run of messages; of a message with too many the first."""
    messages: list[list[bytes]] = []
    left = RUN_BYTES
    with suppress(zmq.Again):
        while len(messages) < _RUN and left > 0:
            # A third quicker than recv_multipart, which asks the socket for what the frame knows.
            frame = socket.recv(zmq.NOBLOCK, copy=False)
            frames = [frame.bytes]
            left -= len(frame)
            while frame.more:
                frame = socket.recv(zmq.NOBLOCK, copy=False)
                left -= len(frame)
                if len(frames) < MOST_FRAMES:
                    frames.append(frame.bytes)
            messages.append(frames)
    return messages
