"""What is stored of a cell's outputs; without a kernel."""

import base64
import io

import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from grader import outputs


def picture(shade: int, software: str | None = None, size: int = 4) -> str:
    about = PngInfo()
    if software:
        about.add_text("Software", software)
        about.add_text("Creation Time", "Monday")
    file = io.BytesIO()
    Image.new("RGB", (size, size), (shade, 0, 0)).save(file, "png", pnginfo=about)
    return base64.b64encode(file.getvalue()).decode()


def notebook(*results, source="draw()", tags=(), count=1):
    metadata = {"tags": list(tags)} if tags else {}
    cell = new_code_cell(
        source, outputs=list(results), execution_count=count, metadata=metadata, id="91-cell"
    )
    return new_notebook(cells=[cell])


def drawn(png):
    return new_output("display_data", {"image/png": png, "text/plain": "<Figure>"})


def printed(text):
    return new_output("stream", name="stdout", text=text)


def test_pictures_lose_their_metadata_and_nothing_else():
    nb = notebook(drawn(picture(200, software="Plotter 1.0")))
    outputs.tidy(nb)
    raw = base64.b64decode(nb.cells[0].outputs[0].data["image/png"])
    assert b"Plotter" not in raw and b"Monday" not in raw
    assert Image.open(io.BytesIO(raw)).getpixel((1, 1)) == (200, 0, 0)


FORGIVE = [(r"\d+ ms", "TIME")]


@pytest.mark.parametrize(
    ("old", "new", "kept"),
    [
        (printed("12 tokens in 31 ms"), printed("12 tokens in 44 ms"), True),
        (printed("12 tokens in 31 ms"), printed("13 tokens in 31 ms"), False),
        (drawn(picture(100)), drawn(picture(110)), True),  # antialiasing on another processor
        (drawn(picture(100)), drawn(picture(200)), False),
        (drawn(picture(100)), drawn(picture(100, size=5)), False),
        (drawn(picture(100)), printed("12"), False),
    ],
)
def test_earlier_outputs_are_kept_when_the_new_ones_say_nothing_new(old, new, kept):
    rebuilt = notebook(new)
    outputs.keep_previous(rebuilt, notebook(old), FORGIVE)
    assert rebuilt.cells[0].outputs == ([old] if kept else [new])


def test_earlier_outputs_of_another_text_are_not_kept():
    rebuilt = notebook(printed("new"), source="draw(2)", tags=["nbval-ignore-output"])
    outputs.keep_previous(rebuilt, notebook(printed("old"), tags=["nbval-ignore-output"]), FORGIVE)
    assert rebuilt.cells[0].outputs[0].text == "new"


@pytest.mark.parametrize(
    "text", ["/home/ann/x.py", "C:\\Users\\ann", "<Model object at 0x7f1a2b3c4d5e>", "/tmp/a"]
)
def test_machine_traces_are_found_in_any_output(text):
    assert outputs.machine_traces(
        notebook(new_output("display_data", {"text/html": f"<b>{text}</b>"})).cells[0]
    )


@pytest.mark.parametrize(
    "text", ["0x1F", "GET /v1/completions", "tok/s", "a/b", "https://example.org/home/x"]
)
def test_ordinary_text_is_no_machine_trace(text):
    assert outputs.machine_traces(notebook(printed(text)).cells[0]) is None
