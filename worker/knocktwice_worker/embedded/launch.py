"""Become another program that dies with its parent and, for root, runs as somebody harmless.

Run as a script (``python -I -S launch.py PARENT SIGNAL UID:GID|- PROGRAM …``), standard library only. A program of its
own instead of ``preexec_fn``, because Python code between fork and exec can deadlock in a process with threads.

A server that root starts runs as an ordinary user, but the home folder and the virtual environment may lie inside a
folder that only root may enter (``/root``). So the dropped process keeps one capability, to pass closed doors, rather
than anybody's folders being opened.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from contextlib import suppress

#: From <linux/prctl.h>, <linux/securebits.h> and <linux/capability.h>.
PR_SET_PDEATHSIG, PR_SET_KEEPCAPS, PR_SET_SECUREBITS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE = 1, 8, 28, 47, 2
SECBIT_NO_SETUID_FIXUP = 1 << 2
CAPABILITY_VERSION_3 = 0x20080522
CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 1, 2

#: Reading anything is enough, and safer; but a Docker container's root has only the right to write as well.
DOORS = (CAP_DAC_READ_SEARCH, CAP_DAC_OVERRIDE)


def main(arguments: list[str]) -> None:
    """Drop privileges, tie this process to its parent, become the program."""
    parent, death_signal, user, program = int(arguments[0]), int(arguments[1]), arguments[2], arguments[3:]
    if user != "-":
        uid, gid = (int(part) for part in user.split(":"))
        try:
            become(uid, gid)
        except PermissionError:
            sys.exit(
                "This root may not become another user, and PostgreSQL does not run as root: work as an ordinary user."
            )
        if not os.access(program[0], os.X_OK):
            sys.exit(
                f"User {uid} may not reach {program[0]}: open its folders to everybody, or work as an ordinary user."
            )
    if sys.platform == "linux":
        # After the change of user, which clears it.
        prctl(PR_SET_PDEATHSIG, death_signal)
    if os.getppid() != parent:
        # It died before it could be watched.
        sys.exit(1)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        # Python ignores these, and what is ignored stays so across exec.
        signal.signal(number, signal.SIG_DFL)
    os.execv(program[0], program)  # noqa: S606 - a shell is what we do not want


def become(uid: int, gid: int) -> None:
    """Turn root into this user for good, keeping only the right to pass folders that are closed to the user."""
    linux = sys.platform == "linux"
    if linux:
        prctl(PR_SET_KEEPCAPS, 1)
        # PostgreSQL looks for its own programs by access(2), which ignores an ordinary user's capabilities unless this
        # bit is set. Setting it takes a capability (SETPCAP) that some containers withhold; open folders do not need
        # it.
        with suppress(OSError):
            prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP)
    os.setgroups([])
    if linux:
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
        keep_a_door_open()
    else:
        os.setgid(gid)
        os.setuid(uid)


def keep_a_door_open() -> None:
    """Keep the weakest capability that lets this process reach its files, also across exec; if there is none, go on."""
    for door in DOORS:
        try:
            set_capabilities(1 << door)
        except PermissionError:
            continue
        prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, door)
        return
    set_capabilities(0)


def set_capabilities(bits: int) -> None:
    """Hold exactly these capabilities, effective, permitted and inheritable."""
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    low_then_high_words = (ctypes.c_uint32 * 6)(bits, bits, bits, 0, 0, 0)
    check(libc().capset(header, low_then_high_words))


def prctl(option: int, first: int, second: int = 0) -> None:
    """Call prctl(2), which Python does not wrap."""
    check(libc().prctl(option, *(ctypes.c_ulong(value) for value in (first, second, 0, 0))))


def libc() -> ctypes.CDLL:
    """Return the C library this interpreter is linked with."""
    return ctypes.CDLL(None, use_errno=True)


def check(result: int) -> None:
    """Raise what errno says when a C call failed."""
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


if __name__ == "__main__":
    main(sys.argv[1:])
