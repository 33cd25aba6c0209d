"""Without a kernel every explorer is still a picture and a sentence, the same on every run."""

from __future__ import annotations

import base64
import io
import re
import warnings
from pathlib import Path

import nbformat
import pytest
from PIL import Image

from lessonlib import explorers
from lessonlib.explorers.saved import VIEW, drop_views, keep_pictures

from .tiny import CONFIG

MAKE = {
    "autoregressive": lambda tiny: explorers.autoregressive(CONFIG),
    "batching": lambda tiny: explorers.batching(),
    "deployment": lambda tiny: explorers.deployment(),
    "kv_cache": lambda tiny: explorers.kv_cache(CONFIG),
    "next_token": lambda tiny: explorers.next_token(tiny, tiny, "def f(x):\n    return '🙂'"),
    "paged_blocks": lambda tiny: explorers.paged_blocks(),
    "pipeline": lambda tiny: explorers.pipeline(tiny, "def f(x):"),
    "quantization": lambda tiny: explorers.quantization(tiny, text="def f(x):"),
    "roofline": lambda tiny: explorers.roofline(CONFIG),
    "sampling": lambda tiny: explorers.sampling(tiny, tiny, "def f(x):"),
    "security": lambda tiny: explorers.security(tiny, tiny),
    "speculative": lambda tiny: explorers.speculative(tiny, tiny, "def f(x):"),
    "tokenizer": lambda tiny: explorers.tokenizer(tiny, "def f(x):\n\treturn '日本 🙂'\n" * 20),
}


def test_there_is_a_picture_for_every_explorer():
    assert set(MAKE) == set(explorers.__all__)
    with pytest.raises(AttributeError, match="there are autoregressive"):
        explorers.nonsense  # noqa: B018
    for name in explorers.__all__:
        assert callable(getattr(explorers, name)) and callable(getattr(explorers, name))


@pytest.mark.parametrize("name", MAKE)
def test_same_bytes_twice(name: str, tiny: Path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a glyph the font does not have
        (first, sizes), (second, _) = (MAKE[name](tiny)._repr_mimebundle_() for _ in range(2))
    assert first["image/png"] == second["image/png"]
    assert first["text/plain"] == second["text/plain"]
    assert first[VIEW]["model_id"] != second[VIEW]["model_id"]
    image = Image.open(io.BytesIO(base64.b64decode(first["image/png"])))
    assert image.info == {}, "metadata would differ between machines"
    assert image.width == 2 * sizes["image/png"]["width"] == 1880
    assert len(first["image/png"]) < 100_000


@pytest.mark.parametrize("name", MAKE)
def test_the_words_name_no_address_and_no_id(name: str, tiny: Path):
    widget = MAKE[name](tiny)
    bundle, _ = widget._repr_mimebundle_()
    text = bundle["text/plain"]
    assert text == repr(widget) == widget.summary()
    assert widget.model_id not in text and not re.search(r"0x[0-9a-f]{6}", text)
    assert len(text) > 60 and "\n" not in text


def test_a_saved_notebook_keeps_the_picture_and_drops_the_view(tiny: Path):
    bundle, metadata = MAKE["autoregressive"](tiny)._repr_mimebundle_()
    output = nbformat.v4.new_output("display_data", bundle, metadata=metadata)
    slider = nbformat.v4.new_output("display_data", {VIEW: {"model_id": "1"}, "text/plain": "IntSlider()"})
    cell = nbformat.v4.new_code_cell("x", outputs=[output, slider])
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("a"), cell])
    keep_pictures(model={"type": "notebook", "content": notebook}, path="a.ipynb", contents_manager=None)
    assert set(cell.outputs[0].data) == {"image/png", "text/plain"}
    assert VIEW in cell.outputs[1].data  # no picture to fall back on
    keep_pictures(model={"type": "file", "content": "text"}, path="a.txt", contents_manager=None)
    drop_views(notebook)


def test_nbconvert_shows_the_picture(tiny: Path):
    nbconvert = pytest.importorskip("nbconvert")
    bundle, metadata = MAKE["sampling"](tiny)._repr_mimebundle_()
    output = nbformat.v4.new_output("display_data", bundle, metadata=metadata)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x", outputs=[output])])
    page, _ = nbconvert.HTMLExporter(template_name="lab").from_notebook_node(notebook)
    assert bundle["image/png"][:200] in page
    assert bundle[VIEW]["model_id"] not in page


def test_pictures_do_not_touch_the_users_matplotlib(tiny: Path):
    import matplotlib

    before = dict(matplotlib.rcParams)
    backend = matplotlib.get_backend(auto_select=False)
    MAKE["autoregressive"](tiny)._repr_mimebundle_()
    assert dict(matplotlib.rcParams) == before
    assert matplotlib.get_backend(auto_select=False) == backend
