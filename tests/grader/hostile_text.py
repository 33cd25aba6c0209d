"""What a submission may say to get a page to run, load or follow something. Each one that works says so."""

from __future__ import annotations

from typing import Any

FLAG = "window.pwned = (window.pwned || 0) + 1"
AWAY = "http://stranger.invalid"

_SCRIPTS = f"""<script>{FLAG}</script><script src="{AWAY}/a.js"></script><script src="/files/stranger.js"></script>
<img src=x onerror="{FLAG}"><img src="{AWAY}/a.png"><img src="stranger.png">
<svg onload="{FLAG}"><animate onbegin="{FLAG}" attributeName=x dur=1s></svg><svg><script>{FLAG}</script></svg>
<math><mtext><table><mglyph><style><img src=x onerror="{FLAG}"></style></table></mtext></math>
<noscript><p title="</noscript><img src=x onerror={FLAG.replace(" ", "")}>"></noscript>
<iframe srcdoc="<script>parent.{FLAG}</script>"></iframe><iframe src="{AWAY}/frame"></iframe>
<iframe src="javascript:parent.{FLAG}"></iframe><object data="{AWAY}/o"></object><embed src="{AWAY}/e">
<details open ontoggle="{FLAG}"><summary>x</summary></details><input autofocus onfocus="{FLAG}">
<link rel=stylesheet href="{AWAY}/a.css">
<style>@import url({AWAY}/b.css); body {{ background: url({AWAY}/b.png) }}</style>
<p style="background: url({AWAY}/c.png)">styled</p><base href="{AWAY}/"><meta http-equiv=refresh content="0;url={AWAY}">
<form action="{AWAY}"><input name=x></form><video src="{AWAY}/v" autoplay onerror="{FLAG}"></video>
<a href="javascript:{FLAG}">raw</a></textarea></title></div></div></div><script>{FLAG}</script>"""

LINKS = f"""[one](javascript:{FLAG.split(" ")[0]}=1)
[two](JaVaScRiPt:alert(1)) [three](data:text/html,<script>x</script>)
[four]({AWAY}/page "a title\\" onclick=\\"{FLAG}")
[five](/formgrader/manage_students/%22;alert(1)) <javascript:alert(1)>
![six]({AWAY}/six.png) ![seven](stranger.png) ![eight" onerror="{FLAG}](data:image/png;base64,AAAA)
![nine](data:image/svg+xml;base64,PHN2ZyBvbmxvYWQ9ImFsZXJ0KDEpIi8+) ![ten](attachment:stranger.png)
[eleven]: javascript:{FLAG.split(" ")[0]}

[eleven] $\\href{{javascript:alert(1)}}{{x}}$ $\\text{{<img src=x onerror="{FLAG}">}}$
![$x$ " onerror="{FLAG}]({AWAY}/y)
$$\\style{{background:url({AWAY}/z)}}{{x}} \\unicode{{x3c}}$$"""

ORDINARY = """**bold** and *slanted*, `a < b & c`, 1 < 2 & 3, $e^{x} \\le 1$

| format | bytes |
|---|---|
| INT4 | 3 |

```python
if a < b & c:
    print("<b>")
```
"""

ANSWER = f"{ORDINARY}\n\n{LINKS}\n\n{_SCRIPTS}\n\n# <img src=x onerror='{FLAG}'>\n\n`</code><script>{FLAG}</script>`\n"

CODE = f"'''</pre></div><script>{FLAG}</script><img src=x onerror=\"{FLAG}\">'''\n"


def _display(**data: str) -> dict[str, Any]:
    return {
        "output_type": "display_data",
        "metadata": {"filenames": {"image/png": f"{AWAY}/f.png"}, "text/html": {"isolated": True}},
        "data": {key.replace("__", "/").replace("_plus_", "+"): value for key, value in data.items()},
    }


OUTPUTS = [
    {"output_type": "stream", "name": "stdout", "text": _SCRIPTS},
    {
        "output_type": "stream",
        "name": "stderr",
        "text": f"\x1b[31m</pre><script>{FLAG}</script>\x1b[0m warned\n",
    },
    _display(text__html=_SCRIPTS),
    _display(application__javascript=FLAG),
    _display(image__svg_plus_xml=f"<svg xmlns='http://www.w3.org/2000/svg' onload='{FLAG}'></svg>"),
    _display(text__markdown=_SCRIPTS, text__plain=_SCRIPTS),
    _display(text__latex=f"$\\href{{javascript:{FLAG}}}{{x}}$"),
    _display(image__png=f'AAAA" onerror="{FLAG}'),
    {"output_type": "error", "ename": "<script>", "evalue": _SCRIPTS, "traceback": [_SCRIPTS]},
]

# What else a student's cells may carry: none of it is taken.
CELL = {
    "attachments": {"stranger.png": {"image/svg+xml": f"<svg onload='{FLAG}'/>"}},
    "id": 'x"><script>1</script>',
}
