"""Starting the page: Gradio told, before it is imported, to keep to itself; and ending it."""

import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from whatwhere.serve.uploads import MEGABYTES

PORT = 7860
TRIED = 100  # ports, where none was asked for
SESSIONS = 100  # open pages whose inputs are kept


def free_port(host: str, port: int | None) -> int:
    """The port asked for, or the first free one from 7860 on.

    Raises:
        ValueError: it is taken; or the host is none of this machine's addresses.
    """
    asked = range(PORT, PORT + TRIED) if port is None else (port,)
    for each in asked:
        try:
            # Gradio binds this address, whatever the host, and does not reuse it: a port of a page
            # that just ended stays taken for a minute. create_server would not see that.
            with socket.socket() as tried_by_gradio:
                tried_by_gradio.bind(("127.0.0.1", each))
            with socket.create_server((host, each)):
                return each
        except OSError as error:
            problem = error
    tried = f"{host}:{asked[0]}" + (f" to {asked[-1]}" if port is None else "")
    raise ValueError(
        f"expected a free port, {tried} can't be had: {problem.strerror}; pass another --port"
        + ("" if port is None else ", or none to have a free one found")
    )


@contextmanager
def own_folder() -> Iterator[Path]:
    """A temporary folder that all of the page's files go into, removed with everything at the end.

    Gradio reads its environment when it is imported. What the machine's says of it does not count
    here: it could share the page, or open folders to it.
    """
    with tempfile.TemporaryDirectory(prefix="whatwhere-serve-") as folder:
        before, elsewhere = dict(os.environ), tempfile.tempdir
        for name in before:
            if name.startswith("GRADIO_"):
                del os.environ[name]
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        os.environ["GRADIO_TEMP_DIR"] = folder
        os.environ["HF_HUB_OFFLINE"] = "1"
        os.environ["NO_PROXY"] = "*"  # it asks itself whether it is up, and no one else anything
        tempfile.tempdir = folder  # of uploads on their way
        try:
            yield Path(folder)
        finally:
            tempfile.tempdir = elsewhere
            os.environ.clear()
            os.environ.update(before)


@contextmanager
def serving(page: Any, *, host: str, port: int) -> Iterator[str]:
    """Serve Gradio's blocks for the length of a block of Python's; gives the address."""
    page.queue(default_concurrency_limit=1, api_open=False, max_size=64)
    _, address, _ = page.launch(
        server_name=host,
        server_port=port,
        share=False,
        allowed_paths=[],
        max_file_size=f"{MEGABYTES}mb",
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        mcp_server=False,
        ssr_mode=False,
        pwa=False,
        inbrowser=False,
        quiet=True,
        show_error=False,
        state_session_capacity=SESSIONS,
        prevent_thread_lock=True,
    )
    try:
        yield address
    finally:
        page.close(verbose=False)
