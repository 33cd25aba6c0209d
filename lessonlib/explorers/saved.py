"""What a saved notebook keeps of an explorer: the picture and the words, not a view whose kernel is gone.

JupyterLab prefers a widget's view to any picture beside it, and writes "model not found" when it is opened
without its kernel. So the view is left out on saving; the open page is not touched.
"""

from __future__ import annotations

from typing import Any

VIEW = "application/vnd.jupyter.widget-view+json"


def drop_views(notebook: dict[str, Any]) -> None:
    """Remove, in place, the widget view of every output that also has a PNG."""
    for cell in notebook.get("cells", []):
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "image/png" in data:
                data.pop(VIEW, None)


def keep_pictures(model: dict[str, Any], **_: Any) -> None:
    """For ``FileContentsManager.pre_save_hook``: what JupyterLab sends to be saved, views dropped."""
    if model.get("type") == "notebook" and isinstance(model.get("content"), dict):
        drop_views(model["content"])
