"""nbgrader's settings for this course, read by nbgrader and by `lesson build`.

A class is kept in `grader/course`; from inside it, `nbgrader generate_assignment 01_generation` works.
"""

import os
import sys
from pathlib import Path

from nbconvert.preprocessors import CSSHTMLHeaderPreprocessor
from nbgrader.preprocessors import GetGrades

from grader.feedback import HideHiddenTests

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

# nbgrader's own list has no step that hides the hidden tests.
c.GenerateFeedback.preprocessors = [GetGrades, HideHiddenTests, CSSHTMLHeaderPreprocessor]
