"""What a student touches: check, hint, predict, quiz, progress.

Nothing heavy is imported before it is needed: torch by a check, widgets by a form.
"""

from .checking import CheckFailed
from .errors import ClassroomError
from .feedback import check
from .hints import hint
from .predict import predict
from .progress import progress
from .quiz import quiz

__all__ = ["CheckFailed", "ClassroomError", "check", "hint", "predict", "progress", "quiz"]
