"""What nbgrader needs to know in an instructor's server; how it grades stands in the course folder's own file."""

import os

c = get_config()  # type: ignore[name-defined]  # noqa: F821 - the loader puts it there

c.CourseDirectory.course_id = "llm-inference"
c.CourseDirectory.root = os.path.expanduser("~/course")
c.Exchange.root = os.environ["LESSON_EXCHANGE"]
if "LESSON_ONE_ACCOUNT" in os.environ:  # a trial: what students hand in belongs to the hub's own account
    c.ExchangeCollect.check_owner = False
