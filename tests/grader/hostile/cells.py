"""Hostile cells for the exercise 07.choose_threshold: name -> source. None of them solves it, so none may earn a point.

``@secret@`` is a file outside, with a word in it; ``@outside@`` a folder outside that anybody may write; ``@port@`` a
port on which somebody outside listens.
"""

from __future__ import annotations

RIGHT = """
def choose_threshold(benign, attacks, budget):
    def flagged(scores, line):
        return sum(score >= line for score in scores) / max(len(scores), 1)
    fits = [line for line in [*benign, *attacks] if flagged(benign, line) <= budget]
    line = min(fits, default=float("inf"))
    return {"threshold": line, "recall": flagged(attacks, line)}
"""
WRONG = "def choose_threshold(benign, attacks, budget):\n    return {'threshold': 0.5, 'recall': 1.0}\n"


def lying(setup: str) -> str:
    """A wrong answer, and something before it that is to make it count."""
    return f"{setup}\n{WRONG}"


READING = {
    "the hidden checks": "from grader.checks.lesson_07 import choose_threshold",
    "the keys": "import grader.keys; print(grader.keys.load_key('07_security'))",
    "a file outside": "print(open(@secret@).read())",
    "the home folder": "import os; print(os.listdir(os.path.expanduser('~root')), open('/root/.bashrc').read())",
    "passwords": "print(open('/etc/shadow').read())",
    "other submissions": "import glob; assert glob.glob('/**/submitted/*', recursive=True), 'none here'",
    "the gradebook": "import glob; assert glob.glob('/**/gradebook.db', recursive=True), 'none here'",
    "the environment": "import os; assert 'LESSON_CANARY' in os.environ, [*os.environ]",
    "other processes": (
        "import os\n"
        "seen = [p for p in os.listdir('/proc') if p.isdigit()]\n"
        "assert any(b'pytest' in open(f'/proc/{p}/cmdline', 'rb').read() for p in seen), seen"
    ),
    "memory of process 1": "open('/proc/1/mem', 'rb').read(10)",
    "the course's checkout": "import pathlib, lessonlib; assert (pathlib.Path(lessonlib.__file__).parents[1] / 'grader').exists()",
    "the source of the answer": (
        "import inspect, lessonlib.classroom.checks.lesson_07.choose_threshold as m\n"
        "print(inspect.getsource(m)); assert 'def right' in inspect.getsource(m) or 'expected' in inspect.getsource(m)"
    ),
    "the compiled answer": (
        "import glob, marshal, lessonlib\n"
        "files = glob.glob(lessonlib.__path__[0] + '/classroom/checks/lesson_07/__pycache__/choose_threshold*.pyc')\n"
        "code = marshal.loads(open(files[0], 'rb').read()[16:]); assert 'MISCONCEPTIONS' in code.co_names"
    ),
}

LEAVING = {
    "a TCP connection": "import socket; socket.create_connection(('127.0.0.1', @port@), 2)",
    "a UDP packet": "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', @port@))",
    "a name server": "import socket; socket.getaddrinfo('example.org', 80)[0][4]",
    "an abstract socket": "import socket; socket.socket(socket.AF_UNIX).connect('\\0/tmp/.X11-unix/X0')",
    "a raw socket": "import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)",
    "netlink": "import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
    "a shell": "import subprocess; subprocess.run(['/bin/sh', '-c', 'id'], check=True)",
    "a fork": "import os; assert os.fork() >= 0",
    "multiprocessing": "import multiprocessing; multiprocessing.Process(target=print).start()",
    "exec": "import os; os.execv('/usr/bin/id', ['id'])",
    "ptrace": "import ctypes; assert ctypes.CDLL(None, use_errno=True).ptrace(0, 0, 0, 0) == 0",
    "mount": "import ctypes; assert ctypes.CDLL(None).mount(b'none', b'/tmp', b'tmpfs', 0, None) == 0",
    "unshare": "import ctypes; assert ctypes.CDLL(None).unshare(0x10000000) == 0",
    "another namespace": "import ctypes, os; assert ctypes.CDLL(None).setns(os.open('/proc/1/ns/net', 0), 0) == 0",
    "root": "import os; os.setuid(0); os.chroot('/')",
    "a device": "import os; os.mknod('/tmp/disk', 0o60666, os.makedev(8, 0)); open('/tmp/disk', 'rb').read(1)",
    "a signal to everybody": "import os, signal; os.kill(-1, signal.SIGKILL)",
    "a signal to the parent": "import os, signal; os.kill(os.getppid() or 1, signal.SIGKILL)",
    "a file outside": "open(@outside@ + '/mine', 'w').write('here')",
    "a link outside": "import os; os.symlink(@secret@, 'link'); print(open('link').read())",
    "the library": "import lessonlib; open(lessonlib.__file__, 'a').write('# mine')",
    "the kernel's settings": "open('/proc/sys/kernel/core_pattern', 'w').write('|/tmp/x')",
    "a core pattern": "import resource; resource.setrlimit(resource.RLIMIT_CORE, (-1, -1))",
    "more memory": "import resource; resource.setrlimit(resource.RLIMIT_AS, (-1, -1))",
    "the terminal": "import fcntl; fcntl.ioctl(0, 0x5412, b'x')",
}

STOPPING = {
    "exit": "import os; os._exit(0)",
    "sys.exit": "import sys; sys.exit(0)",
    "kill itself": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    "stop itself": "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)",
    "crash": "import ctypes; ctypes.string_at(0)",
    "abort": "import os; os.abort()",
    "an endless loop": "while True: pass",
    "a deaf loop": (
        "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "while True:\n    try:\n        while True: pass\n    except BaseException: pass"
    ),
    "a long sleep": "import time; time.sleep(10_000)",
    "a long number": "x = 7 ** (10 ** 9)",
    "a long match": "import re; re.match(r'(a+)+$', 'a' * 40 + 'b')",
    "a lot of memory": "hoard = []\nwhile True: hoard.append(bytearray(2**26))",
    "a huge array": "import numpy; numpy.ones(2**40)",
    "many threads": "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(9999,)).start()",
    "many files": "import itertools\nfor n in itertools.count(): open(f'f{n}', 'w').write('x' * 100_000)",
    "a big file": "with open('big', 'wb') as f:\n    while True: f.write(bytes(2**24))",
    "much output": "while True: print('x' * 100_000)",
    "rich output": "from IPython.display import display, HTML\nwhile True: display(HTML('<p>' * 100_000))",
    "closed files": "import os; os.closerange(0, 4096)",
    "deep recursion": "import sys; sys.setrecursionlimit(10**9)\ndef f(n): return f(n + 1)\nf(0)",
    "no clean end": "import atexit, time; atexit.register(time.sleep, 9999)\nimport os; os.kill(os.getpid(), 15)",
    "a thread that stays": "import threading, time\nthreading.Thread(target=time.sleep, args=(9999,), daemon=False).start()\n1/0",
    "a bomb for the parser": "x = " + "(" * 5000 + ")" * 5000,
    "a deep expression": "x = " + "-" * 90_000 + "1",
    "no Python": "this is not python at all (",
    "many lines": "x = 1\n" * 30_000 + "1/0",
}

FOOLING = {
    "torch.allclose": lying("import torch; torch.allclose = torch.equal = lambda *a, **k: True"),
    "always equal": lying(
        "class Same(float):\n    __eq__ = lambda s, o: True\n    __sub__ = __rsub__ = lambda s, o: 0.0"
    ),
    "IPython": lying("get_ipython().run_cell = get_ipython().run_cell_async = lambda *a, **k: None"),
    "the transformers": lying("get_ipython().input_transformers_cleanup.append(lambda lines: ['pass\\n'])"),
    "builtins": lying(
        "import builtins; builtins.AssertionError = builtins.Exception; builtins.abs = lambda x: 0"
    ),
    "check": lying("def check(*a, **k): print('passed')"),
    "the classroom": lying(
        "import lessonlib.classroom.checking as c, lessonlib.classroom.feedback as f\n"
        "c.seems_to_give = lambda *a: 0.0; f.check = lambda *a, **k: None"
    ),
    "modules": lying(
        "import sys, types; sys.modules['grader'] = sys.modules['grader.checks'] = types.ModuleType('grader')"
    ),
    "a display of success": lying(
        "from IPython.display import display\n"
        "display({'application/vnd.lesson.outcome+json': '[\"passed\", \"\"]', 'text/html': 'passed'}, raw=True)"
    ),
    "the agent": lying(
        "import lesson_agent.agent as a\n"
        "a.Agent._answer = lambda self, message, read: self._send({'printed': ''}, value=[True], after=None)"
    ),
    "its answers": lying(
        "import lesson_agent.agent as a\n"
        "a.Agent._send = lambda self, message, **values: self.line.send({'value': ['l', [1]], 'passed': True, 'points': 99})"
    ),
    "objects never handed out": lying(
        "import lesson_agent.agent as a, lesson_agent.wire as w\n"
        "def answer(self, message, read):\n"
        "    for number in range(100): self.line.send({'ask': number, 'name': '__class__', 'args': ['l', []], 'named': ['d', []]})\n"
        "a.Agent._answer = answer"
    ),
    "silence": lying("import lesson_agent.agent as a; a.Agent._answer = lambda *x: None"),
    "noise": lying(
        "import lesson_agent.agent as a; a.Agent._answer = lambda self, *x: self.line.connection.sendall(b'\\xff' * 2**20)"
    ),
    "a huge answer": lying(
        "import lesson_agent.agent as a, struct\n"
        "a.Agent._answer = lambda self, *x: self.line.connection.sendall(struct.pack('>II', 2**31, 2**31))"
    ),
    "a hung-up line": lying(
        "import lesson_agent.agent as a; a.Agent._answer = lambda self, *x: self.line.close()"
    ),
    "its own agent": lying("import lesson_agent.agent as a; a.serve = lambda path, names: None"),
    "no agent": lying("import sys; sys.modules['lesson_agent'] = sys.modules['lesson_agent.agent'] = None"),
    "import": lying("import builtins; builtins.__import__ = None"),
    "an endless list": "def choose_threshold(*a):\n    return [0] * 10**7",
    "a deep list": "def choose_threshold(*a):\n    x = []\n    for _ in range(10**5): x = [x]\n    return x",
    "a circle": "def choose_threshold(*a):\n    x = {}\n    x['threshold'] = x\n    return x",
    "a huge number": "def choose_threshold(*a):\n    return {'threshold': 10**5000, 'recall': 10**5000}",
    "not a number": "def choose_threshold(*a):\n    return {'threshold': float('nan'), 'recall': float('nan')}",
    "a liar of a number": (
        "class Liar(float):\n    __eq__ = __le__ = __ge__ = lambda s, o: True\n    __hash__ = float.__hash__\n"
        "    __sub__ = __rsub__ = __abs__ = lambda *a: 0.0\n    __round__ = lambda s, n=0: s\n"
        "def choose_threshold(*a):\n    return {'threshold': Liar(1), 'recall': Liar(1)}"
    ),
    "a liar of a dict": (
        "class Liar(dict):\n    __eq__ = lambda s, o: True\n    keys = lambda s: {'threshold', 'recall'}\n"
        "    __getitem__ = lambda s, k: 1.0\n    __iter__ = lambda s: iter(['threshold', 'recall'])\n"
        "def choose_threshold(*a):\n    return Liar()"
    ),
    "a hostile object": (
        "class Bad:\n    def __getattr__(self, name): raise SystemExit\n    __float__ = __iter__ = __len__ = __repr__ = None\n"
        "    def __reduce__(self): return (print, ('run',))\n"
        "def choose_threshold(*a):\n    return Bad()"
    ),
    "a lying class": "class X:\n    __class__ = dict\ndef choose_threshold(*a):\n    return X()",
    "a lying tensor": (
        "import torch\nclass T(torch.Tensor):\n    shape = property(lambda s: (10**9,))\n    __torch_function__ = None\n"
        "def choose_threshold(*a):\n    return {'threshold': T(), 'recall': T()}"
    ),
    "an endless generator": "def choose_threshold(*a):\n    while True: yield 1",
    "the arguments emptied": "def choose_threshold(benign, attacks, budget):\n    benign.clear(); attacks.clear()\n    return {'threshold': 0.0, 'recall': 0.0}",
    "only the first answers": (
        RIGHT.replace("def choose_threshold", "def honest")
        + "seen = []\ndef choose_threshold(*a):\n    seen.append(1)\n    return honest(*a) if len(seen) < 4 else {'threshold': 0.0, 'recall': 0.0}"
    ),
    "exit in the answer": "def choose_threshold(*a):\n    raise SystemExit(0)",
    "an end in the answer": "def choose_threshold(*a):\n    import os; os._exit(0)",
    "a loop in the answer": "def choose_threshold(*a):\n    while True: pass",
    "a deaf loop in the answer": (
        "def choose_threshold(*a):\n    while True:\n        try:\n            while True: pass\n        except BaseException: pass"
    ),
    "memory in the answer": "def choose_threshold(*a):\n    return bytearray(2**40)",
    "the reference": "from lessonlib.security.evaluate import *\nfrom lessonlib.classroom.checks.lesson_07.choose_threshold import right as choose_threshold",
    "the reference, by name": (
        "import importlib\nm = importlib.import_module('lessonlib.classroom.checks.lesson_07.choose_threshold')\n"
        "choose_threshold = next((v for k, v in vars(m).items() if k in ('right', 'expected', 'answer')), m.right)"
    ),
    "nothing": "choose_threshold = None",
    "no name": "del globals()['__builtins__']; x = 1",
}

GROUPS = {"reading": READING, "leaving": LEAVING, "stopping": STOPPING, "fooling": FOOLING}
ALL = {f"{group}: {name}": source for group, cells in GROUPS.items() for name, source in cells.items()}

# No error of its own is needed: it may do to its own room, and to nobody else, what it likes.
HARMLESS = {
    "leaving: a signal to everybody",
    "leaving: a signal to the parent",
    "leaving: a core pattern",
}


def cell(name: str, secret: str, outside: str, port: int) -> str:
    """The source of a hostile cell, aimed at these."""
    return (
        ALL[name]
        .replace("@secret@", repr(secret))
        .replace("@outside@", repr(outside))
        .replace("@port@", str(port))
    )
