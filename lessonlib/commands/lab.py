"""`lesson lab`: the student's own copy of the lessons, open in JupyterLab."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lessonlib.commands import STUDENTS

PANEL = STUDENTS
EXAMPLE = "lesson lab --port 9000 --no-browser"


def lab(
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Listen on this port (otherwise the first free one from 8888)."),
    ] = None,
    ip: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets others in.")] = "127.0.0.1",
    dir: Annotated[
        Path | None, typer.Option(help="Where your copy of the lessons lives (otherwise ./my-lessons).")
    ] = None,
    browser: Annotated[bool, typer.Option(help="Open the web browser.")] = True,
) -> None:
    """Open the lessons in JupyterLab, on your own copy of them.

    Your edits are never overwritten: when a lesson you changed has a newer version, the new one appears
    beside yours. Stop with Ctrl-C.
    """
    from lessonlib.course import LESSONS
    from lessonlib.lab import delivery, server

    home = delivery.student_folder(dir)
    delivered = delivery.deliver(home)
    for item in delivered:
        if item.status == "beside":
            typer.echo(
                f"{item.name} has a newer version: yours is untouched, the new one is {item.path.name}."
            )
    chosen = server.choose_port(ip, port)
    if port is None and chosen != server.DEFAULT_PORT:
        typer.echo(f"Port {server.DEFAULT_PORT} is in use, so this server listens on {chosen}.")

    typer.echo(f"Your lessons are in {home}; starting JupyterLab …")
    first = next((f"{item.slug}.ipynb" for item in LESSONS if (home / f"{item.slug}.ipynb").is_file()), "")
    ours = [item.path for item in delivered if item.status != "kept"]
    show = browser and server.can_open_browser()
    with server.running(home, ip=ip, port=chosen, first=first, ours=ours, open_browser=show) as running:
        running.serve(ready=lambda: _announce(running.url, running.port, ip))
    typer.echo("JupyterLab has stopped.")


def _announce(url: str, port: int, ip: str) -> None:
    from lessonlib.lab import server

    typer.secho(f"\n  {url}\n", bold=True)
    if server.in_container() and ip == server.LOCAL:
        typer.echo(
            "This is a container: to reach it from outside, start with --ip 0.0.0.0 and publish the port "
            f"(docker run -p 127.0.0.1:{port}:{port} …)."
        )
    elif ip in server.EVERYWHERE:
        typer.echo("From another machine, put this one's name in place of 127.0.0.1.")
    typer.echo("Open that address in a browser. Stop with Ctrl-C; your work stays in the folder above.")
