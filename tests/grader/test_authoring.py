"""Mistakes an author can make, and the sentence each is answered with."""

import pytest

from grader.authoring import BuildError, blocks, read_lesson, secret_lines

SOLUTION = 'nbgrader={"solution": true, "grade_id": "91-f"}'
BLOCK = "### BEGIN SOLUTION\n### END SOLUTION"
HIDDEN = "### BEGIN HIDDEN TESTS\n### END HIDDEN TESTS"
CHECK = 'nbgrader={"grade": true, "grade_id": "91-f-check", "points": 1} tags=["raises-exception"]'
TASK = 'nbgrader={"task": true, "grade_id": "91-t", "points": 1}'

MISTAKES = {
    "duplicate grade_id": (
        f"# %% {SOLUTION}\n{BLOCK}\n# %% {SOLUTION}\n{BLOCK}",
        "used by an earlier cell too",
    ),
    "duplicate id": ('# %% id="91-a"\n1\n# %% id="91-a"\n2', "used by an earlier cell too"),
    "dot in an id": ('# %% nbgrader={"solution": true, "grade_id": "91.f"}\n1', "no dots"),
    "id and grade_id differ": (f'# %% {SOLUTION} id="91-other"\n1', "drop the id"),
    "another lesson's number": (
        '# %% nbgrader={"solution": true, "grade_id": "01-f"}\n1',
        "must start with '91-'",
    ),
    "no points": (
        '# %% nbgrader={"grade": true, "grade_id": "91-f-check"} tags=["raises-exception"]\n1',
        "a number above 0",
    ),
    "points as text": ("# %% " + CHECK.replace(" 1}", ' "1"}') + "\n1", "a number above 0"),
    "check that stops Run All": (f"# %% {CHECK.split(' tags')[0]}\n1", 'add tags=["raises-exception"]'),
    "check that is not locked": (
        "# %% " + CHECK.replace('"points": 1', '"points": 1, "locked": false') + "\n1",
        "must stay locked",
    ),
    "solution without a block": (f"# %% {SOLUTION}\nanswer = 42", "without '### BEGIN SOLUTION'"),
    "solution never closed": (f"# %% {SOLUTION}\n### BEGIN SOLUTION\n1", "never closed"),
    "end without begin": (f"# %% {SOLUTION}\n1\n### END SOLUTION", "closes nothing"),
    "nested blocks": (
        f"# %% {SOLUTION}\n### BEGIN SOLUTION\n### BEGIN SOLUTION\n### END SOLUTION",
        "inside an open SOLUTION block",
    ),
    "blocks that cross": (f"# %% {CHECK}\n### BEGIN HIDDEN TESTS\n### END SOLUTION", "closes nothing"),
    "solution in a plain cell": (
        "# %%\n### BEGIN SOLUTION\n1\n### END SOLUTION",
        "outside a solution cell",
    ),
    "hidden tests in a plain cell": (
        "# %%\n### BEGIN HIDDEN TESTS\n1\n### END HIDDEN TESTS",
        "outside a check cell",
    ),
    "hidden tests in a solution cell": (
        f"# %% {SOLUTION}\n{BLOCK}\n{HIDDEN}",
        "outside a check cell",
    ),
    "mark scheme in plain text": (
        "# %% [markdown]\n# ### BEGIN MARK SCHEME\n# ### END MARK SCHEME",
        "outside a task cell",
    ),
    "misspelt marker": (f"# %% {SOLUTION}\n# BEGIN SOLUTIONS\n1\n### END SOLUTION", "looks like a marker"),
    "lower-case marker": (f"# %% {SOLUTION}\n### begin solution\n1", "looks like a marker"),
    "marker after code": (
        f"# %% {SOLUTION}\nx = 1  ### BEGIN SOLUTION\n### END SOLUTION",
        "looks like a marker",
    ),
    "unknown metadata": ('# %% tag=["raises-exception"]\n1', "unknown cell metadata ['tag']"),
    "unknown nbgrader key": ('# %% nbgrader={"solutoin": true, "grade_id": "91-f"}\n1', "nbgrader says"),
    "metadata that is no JSON": ("# %% id=91-f\n1", "text in double quotes"),
    "metadata without its end": ('# %% tags=["raises-exception"\n1', "values are JSON"),
    "nbgrader without a grade_id": ('# %% nbgrader={"solution": true}\n1', "must start with '91-'"),
    "code task": (f"# %% {TASK}\n1", "nbgrader says"),
    "graded text that is no answer": (
        '# %% [markdown] nbgrader={"grade": true, "grade_id": "91-t", "points": 1}\n# Why?',
        "nbgrader says",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_answered_with_a_sentence_naming_file_and_cell(lesson, mistake):
    text, expected = MISTAKES[mistake]
    with pytest.raises(BuildError) as caught:
        read_lesson(lesson("# %% [markdown]\n# A first cell\n\n" + text).source)
    sentence = str(caught.value)
    assert expected in sentence
    assert sentence.startswith("91_small.py") and ", cell " in sentence
    assert "\n" not in sentence


def test_a_mistake_names_its_line(lesson):
    with pytest.raises(BuildError, match=r"line 4, cell 2 \(91-f\)"):
        read_lesson(lesson(f"# %%\nfirst = 1\n\n# %% {SOLUTION}\nanswer = 42\n").source)


def test_tags_that_are_no_list_are_refused(lesson):
    with pytest.raises(
        BuildError, match=r"91_small\.py is no valid notebook: 'hidden' is not of type 'array'"
    ):
        read_lesson(lesson('# %% tags="hidden"\n1').source)


def test_a_file_that_is_no_lesson_is_refused(tmp_path):
    with pytest.raises(BuildError, match=r"call it NN_slug\.py"):
        read_lesson(tmp_path / "generation.py")


def test_the_short_form_is_completed(lesson):
    solution, check, answer = read_lesson(
        lesson(
            f"# %% {SOLUTION}\n### BEGIN SOLUTION\n### END SOLUTION\n\n# %% {CHECK}\nf()\n\n"
            '# %% [markdown] nbgrader={"grade": true, "solution": true, "grade_id": "91-why", "points": 2}\n'
            "# ### BEGIN SOLUTION\n# ### END SOLUTION\n"
        ).source
    ).cells
    common = {"schema_version": 3, "task": False}
    assert solution.metadata.nbgrader == common | {
        "grade": False, "solution": True, "locked": False, "grade_id": "91-f",
    }  # fmt: skip
    assert check.metadata.nbgrader == common | {
        "grade": True, "solution": False, "locked": True, "grade_id": "91-f-check", "points": 1,
    }  # fmt: skip
    assert answer.metadata.nbgrader.locked is False


def ids(toy):
    return [cell.id for cell in read_lesson(toy.source).cells]


def test_editing_or_inserting_a_cell_renumbers_no_other(lesson):
    before = ids(lesson("# %% [markdown]\n# One\n\n# %%\ntwo = 2\n\n# %%\nthree = 3\n"))
    edited = ids(lesson("# %% [markdown]\n# One\n\n# %%\ntwo = 2.0\n\n# %%\nthree = 3\n"))
    inserted = ids(lesson("# %%\nzero = 0\n\n# %% [markdown]\n# One\n\n# %%\ntwo = 2\n\n# %%\nthree = 3\n"))
    assert [a == b for a, b in zip(before, edited, strict=True)] == [True, False, True]
    assert inserted[1:] == before


def test_equal_cells_get_different_ids(lesson):
    assert len(set(ids(lesson("# %%\nx = 1\n\n# %%\nx = 1\n\n# %%\nx = 1\n")))) == 3


def test_ids_come_from_the_author_where_there_are_any(lesson):
    text = f'# %% id="91-clock"\n1\n\n# %% {SOLUTION}\n### BEGIN SOLUTION\n### END SOLUTION\n'
    assert ids(lesson(text)) == ["91-clock", "91-f"]


def test_a_header_written_by_jupytext_changes_nothing(lesson):
    body = "# %% [markdown]\n# One\n\n# %%\ntwo = 2\n"
    header = (
        "# ---\n# jupyter:\n#   kernelspec:\n#     display_name: Elsewhere\n#     name: elsewhere\n# ---\n\n"
    )
    assert read_lesson(lesson(body).source) == read_lesson(lesson(header + body).source)


def test_prose_may_speak_of_solutions(lesson):
    read_lesson(
        lesson("# %% [markdown]\n# # Begin with the solution\n# begin solution, end solution\n").source
    )
    assert blocks("# the solution begins here") == []


def test_secret_lines_leave_out_what_is_told_openly(lesson):
    text = (
        "# %%\nprobabilities = logits.softmax(-1)\n\n"
        f"# %% {SOLUTION}\ndef f(logits):\n    ### BEGIN SOLUTION\n    probabilities = logits.softmax(-1)\n"
        "    return probabilities.argmax()\n    ### END SOLUTION\n"
    )
    assert list(secret_lines(read_lesson(lesson(text).source))) == ["return probabilities.argmax()"]
