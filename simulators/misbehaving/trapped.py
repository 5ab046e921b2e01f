"""Run a program whose calls with a path ask another process first: `trapped.py SOCKET PROGRAM [ARGUMENT...]`.

It sets a seccomp filter, which any user may do for processes of its own, sends
the filter's listener to SOCKET (an abstract UNIX socket) and becomes PROGRAM.
"""

import ctypes
import os
import platform
import socket
import struct
import sys

# By machine: its AUDIT_ARCH, seccomp(2), and the calls whose path is their first and their second argument.
# Names: open stat lstat access mkdir rmdir unlink readlink statfs;
# openat mkdirat newfstatat unlinkat readlinkat faccessat statx openat2 faccessat2.
MACHINES = {
    "x86_64": (0xC000003E, 317, (2, 4, 6, 21, 83, 84, 87, 89, 137), (257, 258, 262, 263, 267, 269, 332, 437, 439)),
    "aarch64": (0xC00000B7, 277, (43,), (56, 34, 79, 35, 78, 48, 291, 437, 439)),
}
_SET_NO_NEW_PRIVS = 38
_SET_MODE_FILTER = 1
_NEW_LISTENER = 8
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_ASK, _ALLOW = 0x7FC00000, 0x7FFF0000


def trap() -> int:
    """Set the filter; return its listener.

    Raises:
        OSError: The kernel or the container does not allow it.
    """
    architecture, number, first, second = MACHINES[platform.machine()]
    calls = (*first, *second)
    program = [(_LOAD, 0, 0, 4), (_EQUAL, 0, len(calls) + 1, architecture), (_LOAD, 0, 0, 0)]
    program += [(_EQUAL, len(calls) - place, 0, call) for place, call in enumerate(calls)]
    program += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _ASK)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *one) for one in program))
    header = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program), ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    listener: int = libc.syscall(number, _SET_MODE_FILTER, _NEW_LISTENER, header)
    if listener < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return listener


if __name__ == "__main__":
    with socket.socket(socket.AF_UNIX) as to:
        to.connect(f"\0{sys.argv[1]}")
        socket.send_fds(to, [b"."], [trap()])
    os.execv(sys.argv[2], sys.argv[2:])
