"""What nbgrader needs to know in a student's server: the course, and where the exchange is."""

import os

c = get_config()  # type: ignore[name-defined]  # noqa: F821 - the loader puts it there

c.CourseDirectory.course_id = "llm-inference"
c.Exchange.root = os.environ["LESSON_EXCHANGE"]
if "LESSON_ONE_ACCOUNT" in os.environ:  # a trial: all students have the hub's own account
    c.CourseDirectory.student_id = os.environ["JUPYTERHUB_USER"]
