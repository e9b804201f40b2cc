"""How the page's events run: networks one at a time, and what is wrong said in words."""

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

import gradio as gr

# Whatever needs a network waits in one line. No event is for other programs to call.
IN_TURN: Mapping[str, Any] = {
    "concurrency_id": "network",
    "concurrency_limit": 1,
    "api_visibility": "private",
    "show_progress": "minimal",
}
QUICK: Mapping[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}


def told(function: Callable[..., Any]) -> Callable[..., Any]:
    """Have the page say what a ValueError says, as of a network that cannot be built here."""

    @wraps(function)
    def telling(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except ValueError as error:
            raise gr.Error(str(error), duration=None, print_exception=False) from error

    return telling
