"""Explorer: a picture that answers to the hand in a live notebook, and is still a picture everywhere else.

The browser draws it (plain JS and SVG: a slider step takes milliseconds, a kernel round trip a hundred).
Beside the widget travel a PNG and a sentence, for a notebook without a kernel, nbconvert and GitHub.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anywidget
import traitlets

from . import assets

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Explorer(anywidget.AnyWidget):
    """Base of every explorer: a subclass names its files with ``picture``, writes ``summary`` and ``figure``.

    ``data``: what Python measured or computed, sent to the browser once. ``state``: where the reader left the
    controls, sent back by the browser. Both are plain JSON.
    """

    picture = ""
    data = traitlets.Dict().tag(sync=True)
    state = traitlets.Dict().tag(sync=True)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        if "picture" in cls.__dict__:
            path = Path(assets.HERE, "pictures", cls.picture)
            cls._esm = assets.script(path.with_suffix(".js"))
            cls._css = assets.style(path.with_suffix(".css"))
        super().__init_subclass__(**kwargs)

    def summary(self) -> str:
        """The picture in words, the same on every run."""
        raise NotImplementedError

    def figure(self) -> Figure:
        """The picture on paper: what the widget shows before anyone touches it."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return self.summary()

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        from .figure import paper

        data, metadata = super()._repr_mimebundle_(**kwargs) or ({}, {})
        image, size = paper(self.figure)
        picture = {"text/plain": self.summary(), "image/png": base64.b64encode(image).decode("ascii")}
        return {**data, **picture}, {**metadata, "image/png": size}
