"""Kernels that misbehave in every way we could think of: each ends as a plain problem, and nothing is left."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from grader import cgroup, sandbox, warm
from grader.locked import LockedKernel
from grader.provisioner import LockedProvisioner
from grader.sandbox import MIB, Jail, Limits, SandboxError, private_room

pytestmark = pytest.mark.needs("bwrap")

FORKS: warm.Zygote | None = None  # what `locked` starts kernels with


@pytest.fixture(scope="module", params=["cold", "warm"], autouse=True)
def starts(request, needs):
    """Every kernel here is started both ways."""
    global FORKS
    needs("bwrap")
    FORKS = warm.zygote(None) if request.param == "warm" else None
    assert FORKS or request.param == "cold", "no warm kernel to be had here"
    yield request.param
    FORKS = None


def inhabitants(namespace: str) -> list[str]:
    """The processes that run in a pid namespace, as seen from outside."""
    found = []
    for entry in os.scandir("/proc"):
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and os.readlink(f"/proc/{entry.name}/ns/pid") == namespace:
                state = Path(entry.path, "stat").read_text().rpartition(")")[2].split()[0]
                if state not in "ZX":  # ended, but its parent has not asked yet
                    found.append(entry.name)
    return found


@contextlib.contextmanager
def locked(**limits):
    """A kernel of its own; afterwards, nothing may be left of it."""
    with private_room() as room:
        with LockedKernel(Jail(room, limits=Limits(**limits)), zygote=FORKS) as kernel:
            first = kernel._provisioner._init_pid
            namespace = os.readlink(f"/proc/{first}/ns/pid")
            assert len(inhabitants(namespace)) == (3 if FORKS else 2)
            yield kernel
            if not kernel.alive:
                assert inhabitants(namespace) == []
        assert inhabitants(namespace) == []
    assert not room.exists()


def test_a_kernel_computes_prints_fails_and_goes_on():
    with locked() as kernel:
        assert kernel.alive and {"namespaces", "seccomp", "memory", "cpu"} <= set(kernel.holding())
        ran = kernel.run("print('one'); import sys; print('two', file=sys.stderr); 6 * 7", 60)
        assert ran.problem is None and not ran.cut
        assert [output.get("text") or output["data"]["text/plain"] for output in ran.outputs] == [
            "one\n",
            "two\n",
            "42",
        ]
        assert kernel.run("1 / 0", 60).problem == "ZeroDivisionError: division by zero (line 1)"
        assert kernel.run("x = = 1", 60).problem == "SyntaxError: invalid syntax (line 1)"
        assert kernel.run("exit()", 60).problem == "SystemExit"
        assert kernel.run("input()", 60).problem.startswith("StdinNotImplementedError")
        seen: list = []
        kernel.run("from IPython.display import display; display(1); display(2)", 60, seen.append)
        assert [output["data"]["text/plain"] for output in seen] == ["1", "2"]
        kernel.kill()
        assert not kernel.alive and kernel.run("1", 60).problem == "died"


def test_a_room_is_good_for_another_kernel_and_several_run_side_by_side():
    def use(_: int) -> str:
        with private_room() as room:
            for name in ("first", "second"):
                with LockedKernel(Jail(room), zygote=FORKS) as kernel:
                    ran = kernel.run(f"import os; print({name!r}, os.listdir()); open('left', 'w')", 60)
                    assert ran.outputs[0]["text"] == f"{name} []\n"
                    kernel.run("import os, threading as t; t.Timer(0.1, lambda: os._exit(3)).start()", 60)
                    while kernel.alive:
                        time.sleep(0.01)
                    assert kernel.run("1", 60).problem == "died"
        return "done"

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(use, range(3))) == ["done"] * 3


def test_code_that_can_be_interrupted_costs_nothing_but_itself():
    with locked() as kernel:
        kernel.run("kept = 7", 60)
        ran = kernel.run("import time\nprint('begun', flush=True)\nwhile True: time.sleep(0.01)", 1)
        assert ran.problem == "too long" and ran.outputs[0]["text"] == "begun\n"
        assert kernel.run("kept", 60).outputs[0]["data"]["text/plain"] == "7"


ENDS = {
    "will not be interrupted": (
        "import signal; signal.signal(2, signal.SIG_IGN)\nwhile True: pass",
        "too long",
    ),
    "leaves": ("import os; os._exit(0)", "died"),
    "kills itself": ("import os; os.kill(os.getpid(), 9)", "died"),
    "stops": ("import os; os.kill(os.getpid(), 19)", "too long"),
    "closes its sockets": ("import os; os.closerange(3, 250)", "died"),
    "breaks a filter's rule": ("import ctypes; ctypes.CDLL(None).syscall(0x40000000 | 57)", "died"),
    "crashes": ("import ctypes; ctypes.string_at(0)", "died"),
    "writes nonsense into its sockets": (
        "import os, socket\nfor n in range(3, 250):\n"
        "  try: socket.socket(fileno=os.dup(n)).send(b'\\xaa' * 100)\n  except OSError: pass\nwhile True: pass",
        "died",
    ),
}


@pytest.mark.parametrize("how", ENDS)
def test_a_kernel_that_ends_badly_ends_alone(how):
    source, problem = ENDS[how]
    if "syscall" in source and os.uname().machine != "x86_64":
        pytest.skip("Only x86-64 has a second table of calls.")
    with locked() as kernel:
        ran = kernel.run(source, 1)
        assert ran.problem == problem and not kernel.alive


BOMBS = {
    "address space": ("x = bytearray(8 << 30)", "out of memory"),
    "arrays": ("import numpy; x = numpy.ones(1 << 30)", "out of memory"),
    "files": (
        "for i in range(9):\n  with open(str(i), 'wb') as f: f.write(bytes(2 << 20))",
        "OSError: [Errno 28]",
    ),
    "temporary files": (
        "for i in range(9): open(f'/tmp/{i}', 'wb').write(bytes(2 << 20))",
        "OSError: [Errno 28]",
    ),
    "shared memory": (
        "for i in range(9): open(f'/dev/shm/{i}', 'wb').write(bytes(2 << 20))",
        "OSError: [Errno 28]",
    ),
    "file": ("open('big', 'wb').write(bytes(4 << 20))", "OSError: [Errno 27]"),
    "open files": ("files = [open('/dev/null') for _ in range(500)]", "OSError: [Errno 24]"),
    "threads": (
        "import threading\ngate, many = threading.Event(), []\nfor _ in range(5000):\n"
        "  many.append(threading.Thread(target=gate.wait, daemon=True)); many[-1].start()",
        "RuntimeError: can't start new thread",
    ),
    "processes": ("import os\nwhile True: os.fork()", "PermissionError"),
}


AFTERWARDS = """
import glob, os
files = x = None
if "gate" in globals():  # threads that wait hold addresses
    gate.set()
    [one.join() for one in many if one.ident]
for path in sum(map(glob.glob, ["*", "/tmp/*", "/dev/shm/*"]), []):
    if os.path.isfile(path): os.remove(path)
6 * 7
"""


@pytest.fixture(scope="module")
def small(starts):
    with locked(memory=1536 * MIB, temporary=8 * MIB, file_size=3 * MIB) as kernel:
        kernel.run("import numpy", 60)
        yield kernel


@pytest.mark.parametrize("what", BOMBS)
def test_a_bomb_is_an_error_in_its_own_cell(small, what):
    source, problem = BOMBS[what]
    ran = small.run(source, 60)
    assert ran.problem.startswith(problem)
    assert small.run(AFTERWARDS, 60).outputs[0]["data"]["text/plain"] == "42"


def test_processor_time_runs_out():
    with locked(cpu=2) as kernel:
        assert kernel.run("while True: pass", 60).problem == "too long" and not kernel.alive


def test_memory_really_used_runs_out():
    with locked(resident=256 * MIB) as kernel:
        if "resident" not in kernel.holding():
            pytest.skip("No control group can be made here.")
        assert (
            kernel.run("x = []\nwhile True: x.append(bytes(1 << 20) + b'1')", 60).problem == "out of memory"
        )
        assert not kernel.alive


def test_output_without_end_is_cut_and_a_giant_message_passed_over():
    with locked() as kernel:
        ran = kernel.run("while True: print('x' * 5000)", 1)
        assert ran.problem == "too long" and ran.cut
        assert sum(len(output.get("text", "")) for output in ran.outputs) < 5 * MIB
        assert kernel.alive
        ran = kernel.run("print('x' * 30_000_000)\n6 * 7", 60)
        assert ran.problem is None and ran.cut


FORGED = """
import hashlib, hmac, json
from ipykernel.kernelapp import IPKernelApp
app = IPKernelApp.instance()
parent = app.kernel.get_parent()["header"]
def send(header, content, key=app.session.key, parent=json.dumps(parent, default=str).encode()):
    parts = [header, parent, b"{}", content]
    signature = hmac.new(key, b"".join(parts), hashlib.sha256).hexdigest().encode()
    app.iopub_socket.send_multipart([b"", b"<IDS|MSG>", signature, *parts])
kinds = ["stream", "display_data", "execute_result", "error", "status", "execute_reply", "update_display_data", "?"]
values = [b"", b"null", b"[]", b"3", b"[" * 9000, b'{"name": {}, "data": 3, "text": [], "traceback": {}, "ename": []}']
for kind in kinds:
    for value in values:
        send(json.dumps({"msg_type": kind, "msg_id": "1"}).encode(), value)
send(b'{"msg_type": "status"}', b'{"execution_state": "idle"}', key=b"another")
send(b'{"msg_type": []}', b"{}")
send(b"\\xff", b"\\xff")
send(b'{"msg_type": "stream"}', b'{"name": "stdout", "text": "\\\\ud800"}', parent=b"[]")
app.iopub_socket.send_multipart([b""])
app.iopub_socket.send_multipart([b"<IDS|MSG>"])
app.iopub_socket.send_multipart([b"x"] * 100)
print("honest", flush=True)
"""


def test_forged_and_malformed_messages_are_only_data():
    with locked() as kernel:
        ran = kernel.run(FORGED, 60)
        assert kernel.alive and {output["output_type"] for output in ran.outputs} <= {"stream", "error"}
        assert any(output.get("text", "").startswith("honest") for output in ran.outputs)
        early = 'send(b\'{"msg_type": "status"}\', b\'{"execution_state": "idle"}\'); print("late")'
        assert kernel.run(early, 60).problem is None  # saying that one is done does no harm
        assert kernel.run("6 * 7", 60).outputs[-1]["data"]["text/plain"] == "42"


PARENT = """
import os, sys
from grader import warm
from grader.locked import LockedKernel
from grader.sandbox import Jail, make_room
with LockedKernel(Jail(make_room()), zygote=warm.zygote(None)) as kernel:
    print(os.readlink(f"/proc/{kernel._provisioner._init_pid}/ns/pid"), kernel.room, flush=True)
    kernel.run("while True: pass", 600)
"""


def test_a_kernel_dies_with_the_grader():
    switch = os.environ | {warm.SWITCH: "warm" if FORKS else "cold"}
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], env=switch, stdout=subprocess.PIPE, text=True
    ) as grader:
        namespace, room = grader.stdout.readline().split()
        try:
            assert len(inhabitants(namespace)) == (3 if FORKS else 2)
        finally:
            grader.send_signal(signal.SIGKILL)
    for _ in range(500):
        if not inhabitants(namespace):
            break
        time.sleep(0.02)
    sandbox.remove_room(Path(room))
    assert inhabitants(namespace) == []
    trees = (Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").glob("*"))
    for _ in range(100):  # a keeper ends a moment after what it kept
        cgroup.Group(2**30, 64).close()  # the next one sweeps up
        left = [path for tree in trees for path in tree.glob(f"**/lesson-kernel-{grader.pid}-*")]
        if not left:
            break
        time.sleep(0.1)
    assert not left


def test_where_it_cannot_be_locked_up_it_does_not_run(monkeypatch):
    monkeypatch.setattr("grader.provisioner.why_not", lambda: "bubblewrap is on holiday.")
    with private_room() as room, pytest.raises(SandboxError, match="on holiday"), LockedKernel(Jail(room)):
        pass


@pytest.mark.parametrize(
    ("jail", "word"),
    [
        ({"binds": (Path("/nowhere"),)}, "source path /nowhere"),
        ({"limits": Limits(memory=40 * MIB)}, "Error"),
    ],
)
def test_a_kernel_that_does_not_start_says_why(jail, word):
    if FORKS and "limits" in jail:
        word = "start|ready"  # a warm one that does not start is followed by a cold one, which says why
    with private_room() as room, pytest.raises(SandboxError, match=word):
        LockedKernel(Jail(room, **jail), zygote=FORKS).__enter__()


def test_without_walls_where_the_instructor_says_so(tmp_path):
    with private_room() as room:
        sandbox.bring({"answer.txt": b"42"}, room)
        with LockedKernel(Jail(room, limits=Limits(file_size=MIB)), unsafe_local=True) as kernel:
            assert "namespaces" not in kernel.holding()
            ran = kernel.run("print(open('answer.txt').read()); import os; print(os.getpid())", 60)
            answer, pid = "".join(output["text"] for output in ran.outputs).split()
            assert answer == "42"
            assert kernel.run("open('x', 'wb').write(bytes(2 << 20))", 60).problem.startswith(
                "OSError: [Errno 27]"
            )
            assert (
                kernel.run("import time\nwhile True: time.sleep(0.01)", 1).problem == "too long"
                and kernel.alive
            )
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)


def test_a_kernelspec_that_names_the_provisioner_is_enough(monkeypatch, tmp_path):
    """As nbgrader or nbclient would use it, through jupyter_client alone."""
    from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from jupyter_client.provisioning import KernelProvisionerFactory
    from nbclient import NotebookClient
    from nbformat.v4 import new_code_cell, new_notebook

    entry = EntryPoint(
        "lesson-locked", "grader.provisioner:LockedProvisioner", KernelProvisionerFactory.GROUP_NAME
    )
    monkeypatch.setitem(KernelProvisionerFactory.provisioners, entry.name, entry)
    started: list[LockedProvisioner] = []
    monkeypatch.setattr(
        LockedProvisioner, "post_launch", lambda self, **_: started.append(self) or _nothing(), raising=False
    )

    class Specs(KernelSpecManager):
        def get_kernel_spec(self, kernel_name):
            config = {"provisioner_name": "lesson-locked", "config": {"limits": {"open_files": 200}}}
            spec = KernelSpec(argv=["python"], display_name="", language="python", interrupt_mode="message")
            spec.metadata = {"kernel_provisioner": config}
            return spec

    class Manager(AsyncKernelManager):
        kernel_spec_manager = Specs()

    source = "import os, resource; print(os.getcwd().startswith('/tmp/lk-'), resource.getrlimit(7)[0])"
    notebook = new_notebook(cells=[new_code_cell(source)])
    NotebookClient(notebook, kernel_manager_class=Manager, timeout=60).execute()
    assert notebook.cells[0].outputs[0].text == "True 200\n"
    assert started[0].process is None or started[0].process.poll() is not None
    assert not started[0].jail.room.exists()


async def _nothing() -> None:
    pass
