"""Takes the screenshots of docs/demo.md: `python tests/support/demo_pictures.py docs`."""

import sys
import tempfile
import threading
from pathlib import Path

from PIL import Image

from browser import Browser
from emor3.demo.looking import DemoSettings
from emor3.demo.serving import build_server, listening, uploads

PICTURES = (
    ("demo-light", 1280, 1060, False, "document.body"),
    ("demo-dark", 1280, 1060, True, "document.body"),
    ("demo-phone", 360, 900, False, "document.getElementById('emor3-answer')"),
)
"""Name, width, height, dark, what is at the top."""
COLOURS = 256


def take(folder: Path) -> None:
    settings = DemoSettings(compare="embedded-hard")
    with listening("127.0.0.1", 0) as door, uploads() as held, tempfile.TemporaryDirectory() as profile:
        server = build_server(settings.load(), settings, "127.0.0.1", held)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [door]})
        thread.start()
        browser = Browser(Path(profile))
        for name, width, height, dark, top in PICTURES:
            browser.open(f"http://127.0.0.1:{door.getsockname()[1]}/", width, height, dark)
            browser.wait("document.querySelector('#emor3-status')?.innerText.includes('Choose')")
            for text, shown in (("spider, weeping", "'[data-testid=image] img'"), ("Ask", "'.emor3-looks'")):
                browser.run(
                    f"[...document.querySelectorAll('button')].find((b) => b.innerText.includes({text!r})).click()"
                )
                browser.wait(f"document.querySelector({shown}) !== null")
            browser.wait("document.querySelector('#emor3-status').innerText.includes('Done.')")
            browser.run(f"{top}.scrollIntoView()")
            target = folder / f"{name}.png"
            browser.screenshot(target)
            Image.open(target).quantize(COLOURS).save(target, optimize=True)
        browser.close()
        server.should_exit = True
        thread.join()


if __name__ == "__main__":
    take(Path(sys.argv[1]))
