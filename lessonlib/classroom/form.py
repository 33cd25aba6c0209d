"""The form: a widget of native controls for questions. It shows and sends; what an answer means is not its
business."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anywidget
import traitlets

_HERE = Path(__file__).parent


class Form(anywidget.AnyWidget):
    """Questions in a notebook, answered with mouse or keyboard.

    spec: {"title", "intro", "questions": [{"id", "kind", "legend", "text", "choices": [{"id", "html"}],
    "unit", "button"}]}, where text, html and intro are HTML made by ``cards.markdown``. state: for each
    answered question {"answer", "tone", "message", "reasons": {choice id: {"right", "html"}}, "closed"}. A
    click sends {"question", "answer"} to ``on_answer``, which returns the question's new state.
    """

    _esm = _HERE / "form.js"
    _css = _HERE / "form.css"
    spec = traitlets.Dict().tag(sync=True)
    state = traitlets.Dict().tag(sync=True)

    def __init__(
        self,
        spec: dict[str, Any],
        state: dict[str, Any],
        on_answer: Callable[[str, Any], dict[str, Any]],
        fallback: dict[str, str],
    ):
        super().__init__(spec=spec, state=state)
        self._on_answer, self._fallback = on_answer, fallback
        self.on_msg(self._receive)

    def _receive(self, _: Any, content: Any, __: Any) -> None:
        known = [question["id"] for question in self.spec["questions"]]
        if not isinstance(content, dict) or content.get("question") not in known:
            return
        question = content["question"]
        self.state = {**self.state, question: self._on_answer(question, content.get("answer"))}

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """The widget, and beside it what a notebook without a kernel shows: the same for everybody."""
        data, metadata = super()._repr_mimebundle_(**kwargs) or ({}, {})
        return {**data, **self._fallback}, metadata
