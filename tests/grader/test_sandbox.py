"""What a submission can see and do inside; what is said where it cannot be locked up."""

import os
import shutil
import socket
import sys
from pathlib import Path

import pytest

from grader import cgroup, mounts, sandbox, warm
from grader.locked import LockedKernel
from grader.sandbox import Jail, SandboxError, bring, diagnose, private_room
from lessonlib import course

IPYTHONS_OWN = {  # environment variables that a kernel sets itself
    *("PWD", "JPY_SESSION_NAME", "MPLBACKEND", "PYDEVD_USE_FRAME_EVAL", "TERM", "CLICOLOR", "FORCE_COLOR"),
    *("CLICOLOR_FORCE", "PAGER", "GIT_PAGER", "LC_CTYPE"),
}


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("library")
    package = Path(course.__file__).parent
    shutil.copytree(
        package, folder / "lessonlib", ignore=shutil.ignore_patterns("__pycache__", "*.safetensors")
    )
    shutil.copytree(mounts.LAUNCH.parent, folder / "lesson_agent")
    return folder


@pytest.fixture(scope="module", params=["cold", "warm"])
def kernel(request, needs, library):
    needs("bwrap")
    forks = warm.zygote(library) if request.param == "warm" else None
    assert forks or request.param == "cold", "no warm kernel to be had here"
    with private_room() as room:
        bring({"answers.txt": b"mine", "my notes.txt": b""}, room)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(room / "grader.sock"))
        listener.listen()
        with listener, LockedKernel(Jail(room, library), zygote=forks) as kernel:
            kernel.listener, kernel.forked = listener, forks is not None
            yield kernel


def said(kernel: LockedKernel, source: str) -> str:
    ran = kernel.run(source, 60)
    assert ran.problem is None, ran
    return "".join(output["text"] for output in ran.outputs if output["output_type"] == "stream")


def test_the_course_is_there_and_works(kernel, library):
    where = said(kernel, "import torch, lessonlib; print(lessonlib.__file__, float(torch.ones(3).sum()))")
    assert where.split() == [str(library / "lessonlib" / "__init__.py"), "3.0"]


def test_the_submissions_own_files_are_there(kernel):
    assert (
        said(
            kernel,
            "import os; print({'answers.txt', 'my notes.txt'} <= {*os.listdir()}, open('answers.txt').read())",
        )
        == "True mine\n"
    )


def test_the_graders_socket_can_be_called(kernel):
    said(
        kernel,
        "import socket; s = socket.socket(socket.AF_UNIX); s.connect('../grader.sock'); s.send(b'hello')",
    )
    caller, _ = kernel.listener.accept()
    with caller:
        assert caller.recv(10) == b"hello"


def test_nothing_of_the_machine_is_there(kernel, tmp_path):
    (tmp_path / "key.txt").write_text("the key")
    root = course.checkout()
    private = [
        tmp_path / "key.txt",
        "/home",
        "/var",
        "/opt",
        "/run",
        "/etc/shadow",
        "/etc/ssh",
        "/sys/class",
        "/boot",
    ]
    private += [root / name for name in ("grader", "notebooks", "quizzes", "lessonlib", ".git")]
    private += [Path.home() / name for name in (".ssh", ".bash_history", ".config", ".cache")]
    asked = [str(path) for path in private]
    assert said(kernel, f"import os; print([p for p in {asked} if os.path.lexists(p)])").strip() == "[]"
    assert said(kernel, "import importlib.util as u; print(u.find_spec('grader'))").strip() in ("None",)


def test_of_the_home_folder_only_the_way_to_python_is_there(kernel, library):
    home = str(Path.home())
    found = said(
        kernel, f"import os; print(*(os.listdir({home!r}) if os.path.isdir({home!r}) else []))"
    ).split()
    shown = (sys.base_prefix, sys.prefix, library, kernel.room)
    for name in found:
        assert any(Path(prefix).is_relative_to(Path(home, name)) for prefix in shown)


def test_no_other_process_is_there(kernel):
    own = ["1", "2", "3"] if kernel.forked else ["1", "2"]  # bubblewrap, and what it started
    assert said(kernel, "import os; print(*(p for p in os.listdir('/proc') if p.isdigit()))").split() == own
    assert said(kernel, "import os; print(os.listdir('/proc/1'))").strip() == "[]"


def test_no_network_is_there(kernel):
    devices = said(kernel, "print(open('/proc/self/net/dev').read())").splitlines()[2:]
    assert [line.split(":")[0].strip() for line in devices if line] == ["lo"]


def test_it_has_no_rights_and_the_graders_environment_is_not_there(kernel, monkeypatch):
    status = dict(
        line.split(":\t", 1)
        for line in said(kernel, "print(open('/proc/self/status').read())").splitlines()
        if line
    )
    assert {int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    assert (status["NoNewPrivs"], status["Seccomp"], status["Seccomp_filters"]) == ("1", "2", "2")
    names = set(said(kernel, "import os; print(*os.environ)").split())
    assert names <= kernel.jail.environment().keys() | IPYTHONS_OWN


FORBIDDEN = {
    "fork": "os.fork()",
    "spawn": "import subprocess; subprocess.run(['/bin/true'])",
    "posix_spawn": "os.posix_spawn('/bin/true', ['true'], {})",
    "pool": "import multiprocessing; multiprocessing.Process(target=print).start()",
    "exec": "os.execv('/bin/true', ['true'])",
    "exec by descriptor": "os.execve(os.open('/bin/true', os.O_RDONLY), ['true'], {})",
    "internet": "socket.socket(socket.AF_INET)",
    "internet 6": "socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)",
    "netlink": "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
    "vsock": "socket.socket(socket.AF_VSOCK)",
    "room": "open('../planted', 'w')",
    "wire": "open('../wire/planted', 'w')",
    "root": "open('/planted', 'w')",
    "dev": "open('/dev/planted', 'w')",
    "etc": "open('/etc/planted', 'w')",
    "usr": "open('/usr/planted', 'w')",
    "python": "open(os.path.join(sys.prefix, 'planted'), 'w')",
    "library": "open(os.path.join(os.path.dirname(__import__('lessonlib').__file__), 'planted'), 'w')",
    "bring": "open('../files/planted', 'w')",
    "system settings": "open('/proc/sys/vm/swappiness', 'r+')",
    "core pattern": "open('/proc/sys/kernel/core_pattern', 'r+')",
    "sysrq": "open('/proc/sysrq-trigger', 'w').write('?')",
    "init's memory": "open('/proc/1/mem', 'r+b')",
    "kernel's symbols": "open('/proc/kallsyms').read()",
    "raised limit": "import resource as r; r.setrlimit(r.RLIMIT_AS, (r.RLIM_INFINITY,) * 2)",
    "ptrace": "system('ptrace', 16, 1)",
    "mount": "system('mount', 0, 0, 0, 0, 0)",
    "unshare": "system('unshare', 0x10000000)",
    "setns": "system('setns', 0, 0)",
    "io_uring": "system('io_uring_setup', 1, 0)",
    "bpf": "system('bpf', 0, 0, 0)",
    "keys": "system('keyctl', 0, 0)",
    "faults": "system('userfaultfd', 0)",
    "counters": "system('perf_event_open', 0, 0, 0, 0)",
    "shared memory": "system('shmget', 0, 4096, 0o1600)",
    "memory file": "os.memfd_create('x')",
    "personality": "system('personality', 0xffffffff)",
}
ALLOWED_ERRORS = {1, 2, 13, 30, 95}  # EPERM, ENOENT, EACCES, EROFS, EOPNOTSUPP


@pytest.mark.parametrize("what", FORBIDDEN)
def test_what_a_submission_cannot_do(kernel, what):
    column = list(sandbox.seccomp.ARCHITECTURES).index(os.uname().machine)
    numbers = {name: pair[column] for name, pair in sandbox.seccomp.FORBIDDEN.items()}
    prepare = f"""
import ctypes, os, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
def system(name, *arguments):
    if libc.syscall({numbers}[name], *arguments) == -1:
        raise OSError(ctypes.get_errno(), name)
try:
    {FORBIDDEN[what].replace("; ", chr(10) + "    ")}
    print("it went through")
except ValueError:
    print(1)
except OSError as error:
    print(error.errno)
"""
    assert int(said(kernel, prepare)) in ALLOWED_ERRORS


def test_what_it_needs_it_can_do(kernel):
    assert (
        said(kernel, "import threading as t; x = t.Thread(target=print, args=[7]); x.start(); x.join()")
        == "7\n"
    )
    assert (
        said(
            kernel, "open('mine', 'w').write('x'); open('/tmp/x', 'w').write('y'); print(open('mine').read())"
        )
        == "x\n"
    )
    assert (
        said(kernel, "import socket; a, b = socket.socketpair(); a.send(b'z'); print(b.recv(1))") == "b'z'\n"
    )
    assert not (kernel.jail.work / "mine").exists()  # it went to memory


def test_the_folder_both_sides_share_is_closed(kernel):
    assert not kernel.jail.wire.exists()
    assert sorted(path.name for path in kernel.room.iterdir()) == ["etc", "files", "grader.sock", "work"]
    assert kernel.room.stat().st_mode & 0o777 == 0o700


def test_installed_answers_are_covered(monkeypatch, tmp_path):
    """In a wheel, the course lies beside the packages that a kernel needs."""
    monkeypatch.setattr(sandbox.shutil, "which", lambda name: "/usr/bin/bwrap")
    monkeypatch.setattr(mounts.site, "getsitepackages", lambda: [str(tmp_path)])
    (tmp_path / "grader").mkdir()
    argv = Jail(tmp_path).argv(["true"])
    assert argv[argv.index(str(tmp_path / "grader")) - 1] == "--tmpfs"


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "/etc/passwd", "a\\b", "C:x", "a\0b", "a\nb", "x" * 200, "\ud800"]
)
def test_only_plain_names_are_brought(tmp_path, name):
    (tmp_path / "files").mkdir()
    with pytest.raises(SandboxError, match="not a plain file name"):
        bring({name: b""}, tmp_path)
    assert not any((tmp_path / "files").iterdir())


def test_too_much_is_not_brought(tmp_path):
    (tmp_path / "files").mkdir()
    with pytest.raises(SandboxError, match="17 MiB together, more than the 16 MiB"):
        bring({"a": bytes(9 * 2**20), "b": bytes(8 * 2**20)}, tmp_path)
    assert not any((tmp_path / "files").iterdir())


@pytest.mark.parametrize(
    ("name", "value", "word"),
    [
        ("kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1"),
        ("user/max_user_namespaces", "0", "user.max_user_namespaces=15000"),
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "AppArmor"),
    ],
)
def test_the_setting_that_stands_in_the_way_is_named(tmp_path, name, value, word):
    setting = tmp_path / "sys" / name
    setting.parent.mkdir(parents=True)
    setting.write_text(f"{value}\n")
    assert word in diagnose("bwrap: No permissions to create new namespace", tmp_path / "sys")


def test_a_container_is_named_and_so_is_what_bubblewrap_said(tmp_path, monkeypatch):
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "cgroup").write_text("0::/docker/4f\n")
    told = diagnose("bwrap: Can't mount proc on /newroot/proc", tmp_path / "sys")
    assert "container" in told and "Can't mount proc" in told
    (tmp_path / "1" / "cgroup").write_text("0::/init.scope\n")
    monkeypatch.setattr(sandbox, "in_container", lambda proc: False)
    assert (
        diagnose("one\nbwrap: odd", tmp_path / "sys") == "bubblewrap cannot start anything here (bwrap: odd)."
    )


@pytest.mark.parametrize(
    ("replace", "word"),
    [
        (("platform.system", lambda: "Darwin"), "Linux only (this is Darwin)"),
        (("shutil.which", lambda name: None), "apt-get install bubblewrap"),
        (("seccomp.supported", lambda: False), "not known for this processor"),
    ],
)
def test_where_it_cannot_be_it_says_why_and_what_to_do(monkeypatch, replace, word):
    monkeypatch.setattr(f"grader.sandbox.{replace[0]}", replace[1])
    told = sandbox.why_not.__wrapped__()
    assert word in told and "docker run" in told and "--unsafe-local" in told


def test_an_old_bubblewrap_and_a_forbidden_one_are_not_used(monkeypatch, tmp_path):
    program = tmp_path / "bwrap"
    monkeypatch.setattr(sandbox.shutil, "which", lambda name: str(program))
    for version, word in (("0.6.1", "0.8 or newer"), ("0.11.0", "creating new namespace failed")):
        program.write_text(
            f'#!/bin/sh\n[ "$1" = --version ] && echo bubblewrap {version} && exit\n'
            "echo bwrap: creating new namespace failed >&2; exit 1\n"
        )
        program.chmod(0o755)
        assert word in sandbox.why_not.__wrapped__()


def test_where_a_control_group_may_be_made(tmp_path):
    mounts = f"cgroup2 {tmp_path}/v2 cgroup2 rw 0 0\ncgroup {tmp_path}/mem cgroup rw,memory 0 0\nproc /proc proc rw 0 0"
    (tmp_path / "v2" / "app" / "mine").mkdir(parents=True)
    (tmp_path / "v2" / "app" / "cgroup.subtree_control").write_text("cpu pids\n")
    (tmp_path / "v2" / "app" / "mine" / "cgroup.subtree_control").write_text("\n")
    found = cgroup._places("4:memory:/here\n0::/app/mine\n", mounts)
    assert (tmp_path / "v2" / "app", ["pids"]) in found and (tmp_path / "mem" / "here", ["memory"]) in found
    assert cgroup.Group(2**30, 64, own="0::/nowhere\n", mounts=mounts).holds == ()
