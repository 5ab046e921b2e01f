"""Receive messages from a ZeroMQ socket, a run at a time.

Each `recv` releases the interpreter lock for a moment. The moment is too short for
the waiting threads, and restarts their wait. A thread that alternates between
receiving and decoding would therefore keep scrapes out. This module receives a
whole run first; the caller then decodes it.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

import zmq

from exporter.kv.limits import MOST_FRAMES, RUN_BYTES

__all__ = ["receive"]

_RUN: Final = 256


def receive(socket: zmq.Socket[bytes]) -> list[list[bytes]]:
    """Return the frames of the waiting messages; does not block.

    A run ends after `_RUN` messages, or after the message that exceeds `RUN_BYTES`.
    Of a message with more than `MOST_FRAMES` frames, only the first are kept, so that
    the caller recognises and drops it (docs/adr/0019).
    """
    messages: list[list[bytes]] = []
    left = RUN_BYTES
    with suppress(zmq.Again):
        while len(messages) < _RUN and left > 0:
            # A third faster than recv_multipart, which asks the socket whether more follows; the frame knows it, too.
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
