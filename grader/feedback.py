"""What a student's feedback page must not show."""

from __future__ import annotations

from nbgrader.preprocessors import ClearHiddenTests
from nbgrader.utils import is_grade, is_solution


class HideHiddenTests(ClearHiddenTests):
    """Takes the hidden tests out of graded cells, and out of the tracebacks that would quote them.

    Only cells nbgrader has restored from the release are read: marker lines a student typed mean nothing.
    """

    def preprocess_cell(self, cell, resources, cell_index):
        if not is_grade(cell) or is_solution(cell):
            return cell, resources
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                output.traceback = output.traceback[-1:]
        return super().preprocess_cell(cell, resources, cell_index)
