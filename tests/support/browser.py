"""A page in a headless browser, with the network off: what a script sees there, and pictures."""

from __future__ import annotations

import functools
import json
import re
import shutil
import subprocess
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars", "--no-first-run",
    # drawn by the CPU: no graphics card is needed
    "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
    "--proxy-server=127.0.0.1:9", "--host-resolver-rules=MAP * ~NOTFOUND",
)  # fmt: skip
HEAD = """<script>
const errors = [];
addEventListener("error", (event) => errors.push(String(event.message)));
addEventListener("unhandledrejection", (event) => errors.push(String(event.reason)));
const say = console.error;
console.error = (...words) => { errors.push(words.join(" ")); say(...words); };
addEventListener("securitypolicyviolation", (event) => errors.push(event.blockedURI));
</script>"""
TAIL = """<script>
(async () => {{
  const found = {{}};
  const pause = (ms) => new Promise((done) => setTimeout(done, ms));
  try {{ {actions} }} catch (error) {{ errors.push(String(error)); }}
  const place = document.createElement("pre");
  place.id = "seen";
  place.textContent = JSON.stringify({{ found, errors }});
  document.body.append(place);
}})();
</script>"""


@functools.cache
def browser() -> str:
    """The path of a browser that starts; empty where there is none. Of a snap that is not installed
    there is a program, too."""
    for path in filter(None, map(shutil.which, NAMES)):
        if subprocess.run([path, "--version"], capture_output=True).returncode == 0:
            return path
    return ""


def look(page: Path, actions: str, folder: Path, size: str = "1200,900") -> dict:
    """What ``actions``, JavaScript that fills ``found``, saw on a page, and its ``errors``."""
    text = page.read_text(encoding="utf-8")
    text = text.replace("<head>", f"<head>{HEAD}", 1)
    text = text.replace("</body>", TAIL.format(actions=actions) + "</body>")
    copy = folder / "looked_at.html"
    copy.write_text(text, encoding="utf-8")
    command = [browser(), *FLAGS, f"--user-data-dir={folder / 'profile'}", "--dump-dom"]
    command += [f"--window-size={size}", "--timeout=100000", "--virtual-time-budget=60000"]
    result = subprocess.run([*command, copy.as_uri()], capture_output=True, text=True, timeout=120)
    seen = re.search(r'<pre id="seen">(.*?)</pre>', result.stdout, re.S)
    assert seen, result.stderr[-2000:]
    return json.loads(seen[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
