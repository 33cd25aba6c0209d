"""nbgrader's settings for this course, read by nbgrader and by `lesson build`.

A class is kept in `grader/course`; from inside it, `nbgrader generate_assignment 01_generation` works.
"""

import os
import sys
from pathlib import Path

from nbgrader.preprocessors import (
    AssignLatePenalties,
    CheckCellMetadata,
    ClearOutput,
    DeduplicateIds,
    OverwriteCells,
    OverwriteKernelspec,
    SaveAutoGrades,
)

from grader import feedback
from grader.plugin import Rebuild, RunLocked

c = get_config()  # type: ignore[name-defined]  # noqa: F821 - the loader puts it there

# The gradebook calls the program `alembic`, which an environment that is not activated does not find.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])

c.CourseDirectory.course_id = "llm-inference"
c.CourseDirectory.root = str(Path(__file__).resolve().parent / "course")

# What a student finds in place of a solution.
c.ClearSolutions.code_stub = {
    "python": "# Your code here: it replaces the next line.\nraise NotImplementedError()"
}
c.ClearSolutions.text_stub = "*Your answer here.*"

# One cell may train or generate for a while; a kernel that is done need not be asked politely (0.9 s each).
c.Execute.timeout = 300
c.Execute.shutdown_kernel = "immediate"
c.Execute.record_timing = False

# Submissions are rebuilt from the release and run locked up, and hidden checks stay outside their process. With
# LESSON_GRADER=plain nbgrader grades in its own way: easier to fool, and it runs strangers' code as you.
if os.environ.get("LESSON_GRADER") != "plain":
    c.Autograde.sanitize_preprocessors = [
        Rebuild, ClearOutput, DeduplicateIds, OverwriteKernelspec, OverwriteCells, CheckCellMetadata,
    ]  # fmt: skip
    c.Autograde.autograde_preprocessors = [RunLocked, SaveAutoGrades, AssignLatePenalties, CheckCellMetadata]

# Formgrader and students' pages: nothing of a submission runs, loads or leads anywhere (grader/feedback.py).
c.HTMLExporter.sanitize_html = True
c.HTMLExporter.filters = feedback.FILTERS
c.HTMLExporter.preprocessors = [feedback.Harmless, feedback.ForGraders]
c.HTMLExporter.extra_template_basedirs = [str(feedback.TEMPLATES), str(feedback.FORMGRADER)]
c.GenerateFeedback.exporter_class = feedback.FeedbackPage
c.GenerateFeedback.preprocessors = [feedback.Grades, feedback.Sections]
c.FeedbackPage.preprocessors = [feedback.Harmless]
c.FeedbackPage.template_name = "lesson_feedback"
# What a browser would run is not copied beside graded notebooks, from where Formgrader would serve it.
c.CourseDirectory.ignore = [
    ".ipynb_checkpoints",
    "*.pyc",
    "__pycache__",
    "feedback",
    *feedback.scripted_files(),
]
