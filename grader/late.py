"""A late policy for nbgrader: so much of the score for every day begun, after a time of grace."""

from __future__ import annotations

import math

from nbgrader.plugins import LateSubmissionPlugin
from traitlets import Float

DAY = 86_400.0


class PerDay(LateSubmissionPlugin):
    """`c.AssignLatePenalties.plugin_class = "grader.late.PerDay"`, then `c.PerDay.share = 0.1`."""

    share = Float(0.1, help="Of the score, for every day begun.").tag(config=True)
    grace_minutes = Float(15.0, help="Late by no more than this costs nothing.").tag(config=True)
    most = Float(1.0, help="No more than this share of the score is lost.").tag(config=True)

    def late_submission_penalty(
        self, student_id: str, score: float, total_seconds_late: float
    ) -> float | None:
        """Points lost; None where the submission is in time."""
        if total_seconds_late <= self.grace_minutes * 60:
            return None
        days = math.ceil(total_seconds_late / DAY)
        return score * min(self.most, self.share * days)
