"""`lesson doctor`: what works on this machine, and what to do about the rest."""

from __future__ import annotations

from typing import Annotated

import typer

from lessonlib.commands import STUDENTS

# Words as well as colours: not everyone sees green.
WORDS = {
    "ok": "[green]works[/]",
    "tight": "[yellow]tight[/]",
    "failed": "[bold red]fails[/]",
    "absent": "[dim]absent[/]",
}

PANEL = STUDENTS
EXAMPLE = "lesson doctor --json"


def doctor(
    json: Annotated[
        bool, typer.Option("--json", help="Print the findings as JSON instead of a table.")
    ] = False,
) -> None:
    """Check Python, memory, packages, kernel, pictures and models, and say what to do.

    Exit status 1 only if something the lessons need does not work.
    """
    from rich.console import Console

    from lessonlib.lab.health import CHECKS, Finding, examine

    findings: list[Finding] = []
    waiting = Console(stderr=True)
    with waiting.status("") as status:
        checks = examine()
        for name, _, _ in CHECKS:
            status.update(f"Checking: {name} …")
            findings.append(next(checks))
    failed = any(finding.status == "failed" for finding in findings)
    if json:
        _print_json(findings, failed)
    else:
        _print_table(findings, failed)
    raise typer.Exit(int(failed))


def _print_json(findings: list, failed: bool) -> None:
    import dataclasses
    import json

    print(
        json.dumps({"ok": not failed, "findings": [dataclasses.asdict(item) for item in findings]}, indent=1)
    )


def _print_table(findings: list, failed: bool) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for item in findings:
        text = escape(item.found) + (f"\n[italic]{escape(item.todo)}[/]" if item.todo else "")
        table.add_row(WORDS[item.status], item.name, text)
    say = Console(highlight=False)
    say.print(table)
    say.print(
        "\n[bold red]Something the lessons need does not work: see what to do above.[/]"
        if failed
        else "\n[green]Everything the lessons need works.[/] Start with: lesson lab"
    )
