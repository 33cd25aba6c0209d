"""JupyterHub for one class: students fetch and submit through nbgrader's exchange, an instructor grades.

    npm ci --prefix grader/hub
    LESSON_HUB=/srv/lesson LESSON_HUB_STUDENTS=ada,ben LESSON_HUB_INSTRUCTORS=grace LESSON_HUB_PASSWORD=… \\
        jupyterhub -f grader/hub/jupyterhub_config.py

As it stands this is a trial: all servers run as you, and one password opens all. README.md says what a real class
changes; those lines are marked REAL below.
"""

import os
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
PLACE = Path(os.environ.get("LESSON_HUB", "lesson-hub")).resolve()  # homes, exchange, and the hub's own files
STUDENTS = set(filter(None, os.environ.get("LESSON_HUB_STUDENTS", "").split(",")))
INSTRUCTORS = set(filter(None, os.environ.get("LESSON_HUB_INSTRUCTORS", "").split(",")))
PASSWORD = os.environ.get("LESSON_HUB_PASSWORD", "")
PORT = int(os.environ.get("LESSON_HUB_PORT", "8000"))
# REAL: an environment with the course's wheel only; keys and hidden checks are in the instructor's.
STUDENTS_PYTHON = Path(os.environ.get("LESSON_HUB_STUDENTS_PREFIX", sys.prefix))
EXCHANGE = PLACE / "exchange"

for name, value in (("_STUDENTS", STUDENTS), ("_INSTRUCTORS", INSTRUCTORS), ("_PASSWORD", PASSWORD)):
    if not value:
        sys.exit(f"LESSON_HUB{name} is not set; grader/hub/README.md shows how to start the hub.")
PROXY = shutil.which("configurable-http-proxy") or HERE / "node_modules/.bin/configurable-http-proxy"
if not os.path.exists(PROXY):
    sys.exit("JupyterHub's proxy is not there; install it with: npm ci --prefix grader/hub")
(PLACE / "homes").mkdir(parents=True, exist_ok=True)
EXCHANGE.mkdir(exist_ok=True)
for role in (
    "student",
    "instructor",
):  # what servers read: the checkout itself is nobody's but the instructor's
    shutil.copytree(HERE / role, PLACE / "config" / role, dirs_exist_ok=True)
EXCHANGE.chmod(0o777)  # as nbgrader asks: everybody hands in there, and only the owner can read it

c = get_config()  # type: ignore[name-defined]  # noqa: F821 - the loader puts it there

c.JupyterHub.bind_url = f"http://127.0.0.1:{PORT}"  # REAL: behind a web server with https
c.JupyterHub.hub_port = int(os.environ.get("LESSON_HUB_INNER_PORT", "8081"))
c.JupyterHub.db_url = f"sqlite:///{PLACE / 'jupyterhub.sqlite'}"
c.JupyterHub.cookie_secret_file = str(PLACE / "cookie_secret")
c.ConfigurableHTTPProxy.command = [str(PROXY)]
c.ConfigurableHTTPProxy.api_url = f"http://127.0.0.1:{os.environ.get('LESSON_HUB_PROXY_PORT', '8001')}"
c.ConfigurableHTTPProxy.pid_file = str(PLACE / "proxy.pid")

c.JupyterHub.authenticator_class = (
    "dummy"  # REAL: "pam", or your university's (oauthenticator, ldapauthenticator)
)
c.DummyAuthenticator.password = PASSWORD
c.Authenticator.allowed_users = STUDENTS | INSTRUCTORS

c.JupyterHub.spawner_class = "simple"  # REAL: systemdspawner or dockerspawner: one account or container each
c.SimpleLocalProcessSpawner.home_dir_template = str(PLACE / "homes" / "{username}")
c.Spawner.default_url = "/lab"
c.Spawner.start_timeout = 120
c.Spawner.http_timeout = 120
if os.getuid() == 0:
    c.Spawner.args = ["--allow-root"]


def prepare(spawner):  # type: ignore[no-untyped-def]
    """Give a student the Assignment List, and an instructor Formgrader and the way to the grader."""
    teaches = spawner.user.name in INSTRUCTORS
    prefix = Path(sys.prefix) if teaches else STUDENTS_PYTHON
    spawner.cmd = [str(prefix / "bin" / "jupyterhub-singleuser")]
    spawner.environment = {
        "JUPYTER_CONFIG_PATH": str(PLACE / "config" / ("instructor" if teaches else "student")),
        "PATH": f"{prefix / 'bin'}{os.pathsep}/usr/local/bin{os.pathsep}/usr/bin{os.pathsep}/bin",
        "LESSON_EXCHANGE": str(EXCHANGE),
        "LESSON_ONE_ACCOUNT": "1",  # REAL: leave it out; names are then those of the accounts
    }


c.Spawner.pre_spawn_hook = prepare
