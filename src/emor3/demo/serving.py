"""The server of the demo: on this machine only unless asked, and with what it was given in a folder that is deleted."""

import os
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from emor3.demo.examples import draw_examples
from emor3.demo.looking import DemoSettings
from emor3.errors import UserError
from emor3.evaluation.candidate import Candidate

if TYPE_CHECKING:
    from fastapi import FastAPI

LARGEST = 20 * 2**20
"""Bytes of an upload."""
MEMORY = Path("/dev/shm")
"""Linux's file system in memory."""
ROOM = 10 * LARGEST
"""Bytes that it must have free to hold the uploads."""
LOCAL = ("127.0.0.1", "localhost")
CONTENT_POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; object-src 'none'; form-action 'self'"
"""Nothing is fetched from elsewhere, whatever a page of Gradio may ask for; it needs inline scripts."""


def check_gradio() -> None:
    """Raise UserError if Gradio is not installed."""
    if find_spec("gradio") is None:
        raise UserError("emor3 demo needs Gradio: pip install 'emor3[demo]'")


def serve(settings: DemoSettings, host: str, port: int, tell: Callable[[str], None]) -> None:
    """Load the models and serve the page until a signal ends it; `tell` gets its address when it can be opened.

    Raises UserError if Gradio is missing, a model cannot be loaded or the port is taken.
    """
    check_gradio()
    with listening(host, port) as door, uploads() as folder:
        server = build_server(settings.load(), settings, host, folder)
        name = f"[{host}]" if ":" in host else host
        tell(f"http://{name}:{door.getsockname()[1]}")
        server.run(sockets=[door])


@contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that a browser can connect to. Raises UserError if there can be none."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        door = socket.create_server((host, port), family=family)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(
            f"cannot serve at {host}, port {port} ({reason}): choose another with --host or --port"
        ) from None
    with door:
        yield door


@contextmanager
def uploads() -> Iterator[Path]:
    """The folder in which Gradio keeps what is uploaded, in memory if there is room; it is deleted in the end."""
    in_memory = MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ROOM
    before = os.environ.get("GRADIO_TEMP_DIR")
    with TemporaryDirectory(
        prefix="emor3-demo-", dir=MEMORY if in_memory else None, ignore_cleanup_errors=True
    ) as name:
        os.environ["GRADIO_TEMP_DIR"] = name
        try:
            yield Path(name)
        finally:
            if before is None:
                del os.environ["GRADIO_TEMP_DIR"]
            else:
                os.environ["GRADIO_TEMP_DIR"] = before


def build_server(candidates: list[Candidate], settings: DemoSettings, host: str, folder: Path) -> Any:
    """A server of the page, to be run on a socket; example images are drawn into the folder."""
    import uvicorn

    examples = folder / "examples"
    examples.mkdir()
    app = build_app(candidates, settings, host, draw_examples(examples))
    # A page that is open holds a connection, on which nothing is waited for in the end.
    return uvicorn.Server(uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1))


def build_app(candidates: list[Candidate], settings: DemoSettings, host: str, examples: list[Path]) -> "FastAPI":
    """The page with limits around it: no other name of the machine, no address to fetch from, no foreign content."""
    import gradio as gr
    from fastapi import FastAPI
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    from emor3.demo.page import STYLE, THEME, build_page

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    if host in LOCAL:  # else another site whose name is made to lead to this machine could read the page
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(LOCAL))
    app.add_middleware(Guarded, local=host in LOCAL)
    gr.mount_gradio_app(
        app,
        build_page(candidates, settings, examples),
        path="/",
        max_file_size=LARGEST,
        show_error=False,
        footer_links=["api"],
        run_history=False,
        ssr_mode=False,
        mcp_server=False,
        theme=THEME,
        css_paths=STYLE,
    )
    return app


class Guarded:
    """Adds the content policy to responses, and refuses requests to fetch something or, if local, of other sites."""

    def __init__(self, app: Any, local: bool) -> None:
        self.app = app
        self.local = local

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """An ASGI application."""
        if scope["type"] == "http" and self._refused(scope):
            await send({"type": "http.response.start", "status": 403, "headers": []})
            await send({"type": "http.response.body", "body": b"refused by emor3 demo"})
            return

        async def guarded(message: Any) -> None:
            if message["type"] == "http.response.start":
                policy = (b"content-security-policy", CONTENT_POLICY.encode())
                headers = [*message["headers"], policy, (b"referrer-policy", b"no-referrer")]
                message = {**message, "headers": headers}
            await send(message)

        await self.app(scope, receive, guarded)

    def _refused(self, scope: Any) -> bool:
        """Whether Gradio would fetch (file=https://…, proxy=https://…), or another site has a reader's browser ask."""
        headers = dict(scope["headers"])
        origin = headers.get(b"origin")
        foreign = self.local and origin is not None and origin != b"http://" + headers.get(b"host", b"")
        return foreign or "=http" in scope["path"].lower()
