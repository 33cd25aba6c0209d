"""The filters, run by a small interpreter of BPF: so both architectures are tried on either."""

import struct

import pytest

from grader import seccomp

MACHINES = list(seccomp.ARCHITECTURES)
ALLOW, EPERM, ENOSYS, NO_SOCKET, KILL = 0x7FFF0000, 0x50001, 0x50026, 0x5005F, 0x80000000


def decide(program: bytes, machine: str, number: int, *arguments: int, arch: int | None = None) -> int:
    """What the filter answers to a system call."""
    arguments = (*arguments, *[0] * (6 - len(arguments)))
    call = struct.pack("<iIQ6Q", number, arch or seccomp.ARCHITECTURES[machine], 0, *arguments)
    steps = list(struct.iter_unpack("=HBBI", program))
    at = held = 0
    while True:
        code, if_true, if_false, operand = steps[at]
        at += 1
        if code == 0x06:
            return operand
        if code == 0x20:
            held = struct.unpack_from("<I", call, operand)[0]
        elif code == 0x15:
            at += if_true if held == operand else if_false
        elif code == 0x45:
            at += if_true if held & operand else if_false
        else:
            raise AssertionError(f"no such instruction: {code}")


@pytest.mark.parametrize("machine", MACHINES)
def test_everything_named_is_refused_and_the_rest_is_not(machine):
    program = seccomp.for_start(machine)
    column = MACHINES.index(machine)
    named = {numbers[column] for numbers in seccomp.FORBIDDEN.values()} - {None}
    by_argument = {
        pair[column] for pair in (seccomp._CLONE, seccomp._CLONE3, seccomp._SOCKET, seccomp._IOCTL)
    }
    for number in range(500):
        if number not in by_argument:
            assert decide(program, machine, number) == (EPERM if number in named else ALLOW), number


@pytest.mark.parametrize("machine", MACHINES)
def test_threads_may_start_and_processes_may_not(machine):
    program = seccomp.for_start(machine)
    clone, clone3 = (pair[MACHINES.index(machine)] for pair in (seccomp._CLONE, seccomp._CLONE3))
    assert decide(program, machine, clone, 0x3D0F00) == ALLOW  # what glibc asks for a thread
    for flags in (17, 0x4111, 0x10000000, 0x1200011):  # fork, vfork, CLONE_NEWUSER, fork as glibc asks for it
        assert decide(program, machine, clone, flags) == EPERM
    assert decide(program, machine, clone3, 0x7FFF0000) == ENOSYS


@pytest.mark.parametrize("machine", MACHINES)
def test_only_unix_sockets_and_no_typing_into_the_terminal(machine):
    program = seccomp.for_start(machine)
    socket, ioctl = (pair[MACHINES.index(machine)] for pair in (seccomp._SOCKET, seccomp._IOCTL))
    assert decide(program, machine, socket, 1) == ALLOW
    for family in (0, 2, 10, 16, 17, 38, 40):  # INET, INET6, NETLINK, PACKET, ALG, VSOCK
        assert decide(program, machine, socket, family) == NO_SOCKET
    for request in (
        0x5412,
        0x541C,
        0xFFFFFFFF00005412,
    ):  # the kernel looks at the low 32 bits, and so must we
        assert decide(program, machine, ioctl, 3, request) == EPERM
    assert decide(program, machine, ioctl, 3, 0x5413) == ALLOW


@pytest.mark.parametrize("machine", MACHINES)
def test_cells_cannot_become_another_program(machine):
    column = MACHINES.index(machine)
    for pair in seccomp._EXEC.values():
        assert decide(seccomp.for_cells(machine), machine, pair[column]) == EPERM
        assert decide(seccomp.for_start(machine), machine, pair[column]) == ALLOW
    assert (
        decide(seccomp.for_cells(machine), machine, seccomp._SOCKET[column], 2) == ALLOW
    )  # the other one's task


@pytest.mark.parametrize("program", [seccomp.for_start, seccomp.for_cells])
def test_another_table_of_calls_is_no_way_around(program):
    i386 = 0x40000003
    assert decide(program("x86_64"), "x86_64", 2, arch=i386) == KILL
    assert decide(program("x86_64"), "x86_64", 0x40000000 | 57) == KILL  # x32
