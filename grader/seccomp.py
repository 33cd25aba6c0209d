"""Which system calls a locked-up kernel may make: two BPF filters, written out by hand.

A list of what is forbidden, not of what is allowed: numerical libraries use a wide and changing set of calls. What
is forbidden is what a cell of a lesson never needs and what attacks on a kernel are made of: new processes, other
processes' memory, mounts and namespaces, keys, modules, io_uring, bpf, memory that no limit counts, any socket that
is not AF_UNIX. A refused call fails (with EPERM, mostly), so a Python program sees an OSError and goes on.

Source: seccomp(2), and "Seccomp BPF" in the Linux kernel's user-space API guide.
"""

from __future__ import annotations

import errno
import platform
import struct
from collections.abc import Mapping

_LOAD, _JUMP_EQ, _JUMP_SET, _RETURN = (
    0x20,
    0x15,
    0x45,
    0x06,
)  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, |JSET|K, BPF_RET|K
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_NUMBER, _ARCH, _ARG0, _ARG1 = 0, 4, 16, 24  # offsets in struct seccomp_data; low words (little endian)
_X32 = 0x40000000  # the bit of x86-64's second table of calls
_CLONE_THREAD, _AF_UNIX = 0x10000, 1
_TERMINAL_INPUT = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX: typing into the terminal one was started from

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # AUDIT_ARCH_*

# name: (x86_64, aarch64); None where the architecture has no such call.
FORBIDDEN: dict[str, tuple[int | None, int | None]] = {
    "fork": (57, None),
    "vfork": (58, None),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "unshare": (272, 97),
    "setns": (308, 268),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "fanotify_init": (300, 262),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    "syslog": (103, 116),
    "personality": (135, 92),
    "modify_ldt": (154, None),
    "iopl": (172, None),
    "ioperm": (173, None),
    "uselib": (134, None),
    "vhangup": (153, 58),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "adjtimex": (159, 171),
    "clock_adjtime": (305, 266),
    # Memory that belongs to no address space, and so to no limit of ours:
    "shmget": (29, 194),
    "semget": (64, 190),
    "msgget": (68, 186),
    "mq_open": (240, 180),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
}
_EXEC = {"execve": (59, 221), "execveat": (322, 281)}
_CLONE, _CLONE3, _SOCKET, _IOCTL = (56, 220), (435, 435), (41, 198), (16, 29)


def supported(machine: str | None = None) -> bool:
    """True if the filters know this machine's system calls."""
    return (machine or platform.machine()) in ARCHITECTURES


def for_start(machine: str | None = None) -> bytes:
    """The filter for bubblewrap (``--seccomp``): all that is forbidden, except starting the interpreter."""
    return _program(machine or platform.machine(), FORBIDDEN, arguments=True)


def for_cells(machine: str | None = None) -> bytes:
    """The filter that the interpreter adds once it runs: no other program takes its place."""
    return _program(machine or platform.machine(), _EXEC, arguments=False)


def _program(machine: str, forbidden: Mapping[str, tuple[int | None, int | None]], arguments: bool) -> bytes:
    """An array of struct sock_filter, each (u16 code, u8 jump if true, u8 jump if false, u32 operand)."""
    column = list(ARCHITECTURES).index(machine)
    refuse = _step(_RETURN, _ERRNO | errno.EPERM)
    code = [
        _step(_LOAD, _ARCH),
        _step(_JUMP_EQ, ARCHITECTURES[machine], 1, 0),
        _step(_RETURN, _KILL),  # another table of calls: not a way around this one
        _step(_LOAD, _NUMBER),
        _step(_JUMP_SET, _X32, 0, 1),
        _step(_RETURN, _KILL),
    ]
    for numbers in forbidden.values():
        if (number := numbers[column]) is not None:
            code += [_step(_JUMP_EQ, number, 0, 1), refuse]
    if arguments:
        # glibc starts threads with clone3, whose flags lie behind a pointer that a filter cannot follow. Told that
        # there is no such call, it falls back to clone, whose flags are the first argument.
        code += [_step(_JUMP_EQ, _CLONE3[column], 0, 1), _step(_RETURN, _ERRNO | errno.ENOSYS)]
        code += [_step(_JUMP_EQ, _CLONE[column], 0, 3), _step(_LOAD, _ARG0)]
        code += [_step(_JUMP_SET, _CLONE_THREAD, 1, 0), refuse, _step(_LOAD, _NUMBER)]
        code += [_step(_JUMP_EQ, _SOCKET[column], 0, 3), _step(_LOAD, _ARG0)]
        # Not EPERM: libzmq, which looks for network interfaces as ipykernel starts, aborts on any errno but this.
        no_socket = _step(_RETURN, _ERRNO | errno.EOPNOTSUPP)
        code += [_step(_JUMP_EQ, _AF_UNIX, 1, 0), no_socket, _step(_LOAD, _NUMBER)]
        code += [_step(_JUMP_EQ, _IOCTL[column], 0, 4), _step(_LOAD, _ARG1)]
        code += [_step(_JUMP_EQ, _TERMINAL_INPUT[0], 1, 0), _step(_JUMP_EQ, _TERMINAL_INPUT[1], 0, 1), refuse]
    code.append(_step(_RETURN, _ALLOW))
    return b"".join(code)


def _step(code: int, operand: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, operand)
