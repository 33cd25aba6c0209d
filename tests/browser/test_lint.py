"""The course's JavaScript is linted by ESLint, with the settings in eslint.config.mjs."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.needs("node")

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
ESLINT = HERE / "node_modules" / "eslint" / "bin" / "eslint.js"
CODE = ("lessonlib/explorers", "lessonlib/classroom", "tests/explorers/js", "tests/classroom/js")


def lint(*arguments: str, source: str = "") -> list[str]:
    """Complaints, one line each. Skips where ESLint was not fetched; under CI=true, fails."""
    if not ESLINT.is_file():
        sentence = "For this test run: npm ci --prefix tests/browser"
        (pytest.fail if os.environ.get("CI", "").lower() in ("true", "1") else pytest.skip)(sentence)
    command = [
        "node",
        str(ESLINT),
        "--config",
        str(HERE / "eslint.config.mjs"),
        "--format",
        "json",
        *arguments,
    ]
    done = subprocess.run(
        command, cwd=REPOSITORY, input=source, capture_output=True, encoding="utf-8", timeout=120
    )
    assert done.stdout, done.stderr
    return [
        f"{Path(file['filePath']).name}:{said.get('line')}: {said['message']} ({said['ruleId']})"
        for file in json.loads(done.stdout)
        for said in file["messages"]
    ]


def test_all_javascript_is_clean():
    complaints = lint(*CODE, str(HERE / "eslint.config.mjs"))
    assert not complaints, "\n".join(complaints)


@pytest.mark.parametrize(
    "source, rule",
    [
        ("var a = 1;\nexport { a };", "no-var"),
        ("export const f = () => missing;", "no-undef"),
        ("export const f = (a) => a == 1;", "eqeqeq"),
        ("const unused = 1;", "no-unused-vars"),
        ("export const f = (a) => eval(a);", "no-eval"),
        ("export const f = (a) => { process.exit(a); };", "no-undef"),  # node's, not a browser's
    ],
)
def test_the_settings_find_what_they_are_for(source: str, rule: str):
    assert any(
        f"({rule})" in said for said in lint("--stdin", "--stdin-filename", "lessonlib/x.js", source=source)
    )
