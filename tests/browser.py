"""What a real browser sees of one of our pages, on a phone and on a desk."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
WIDTHS = (390, 1280)
needs_browser = pytest.mark.skipif(
    BROWSER is None, reason="no chromium and no google-chrome to look at the page"
)
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
)

# The page stands in a frame of each width; the outer page looks into it and writes what it saw.
_HARNESS = """<!DOCTYPE html><meta charset="utf-8"><body>{frames}<pre id="seen"></pre><script>
addEventListener("load", () => {{
  const seen = [];
  for (const frame of document.querySelectorAll("iframe")) {{
    const page = frame.contentDocument, root = page.documentElement;
    const right = root.clientWidth + 0.5;
    seen.push({{
      inner: frame.contentWindow.innerWidth,
      client: root.clientWidth,
      scroll: root.scrollWidth,
      charts: page.querySelectorAll("svg.chart").length,
      requests: frame.contentWindow.performance.getEntriesByType("resource")
        .map(entry => entry.name).filter(name => !name.startsWith("data:")),
      scripts: page.scripts.length,
      h1: [...page.querySelectorAll("h1")].map(e => e.textContent),
      h2: [...page.querySelectorAll("h2")].map(e => e.textContent),
      anchors: [...page.querySelectorAll("nav a")].filter(
        a => !page.querySelector(a.getAttribute("href"))).length,
{members}
    }});
  }}
  document.getElementById("seen").textContent = JSON.stringify(seen);
}});
</script>"""


def look(text: str, folder: Path, members: str) -> list[dict[str, Any]]:
    """What is seen of the page ``text``, once for each of WIDTHS.

    Args:
        folder: for the browser's files.
        members: further members of what is seen, in JavaScript over ``page`` and ``right``, where
            the window ends.
    """
    assert BROWSER is not None
    source = html.escape(text, quote=True)
    frames = "".join(
        f'<iframe width="{width}" height="900" style="border:0" srcdoc="{source}"></iframe>'
        for width in WIDTHS
    )
    harness = folder / "harness.html"
    harness.write_text(_HARNESS.format(frames=frames, members=members), encoding="utf-8")
    profile = f"--user-data-dir={folder / 'profile'}"
    arguments = [
        BROWSER,
        *_FLAGS,
        profile,
        "--window-size=1400,1000",
        "--virtual-time-budget=20000",
    ]
    done = subprocess.run(
        [*arguments, "--dump-dom", harness.as_uri()], capture_output=True, text=True, timeout=120
    )
    seen = re.search(r'<pre id="seen">(.+?)</pre>', done.stdout, re.DOTALL)
    assert seen, done.stderr[-2000:]
    found: list[dict[str, Any]] = json.loads(html.unescape(seen[1]))
    return found
