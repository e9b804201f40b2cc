"""The page in Gradio's blocks: what is on it, and which event asks for which answer.

It is imported inside ``server.own_folder`` only: Gradio reads its environment on import.
"""

from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
from gradio_client.utils import is_http_url_like

from whatwhere.inputs import Input
from whatwhere.serve.drawing import thumbnail
from whatwhere.serve.events import QUICK
from whatwhere.serve.gates_tab import GatesTab
from whatwhere.serve.opening import Site
from whatwhere.serve.uploads import MEGABYTES, SECONDS, UploadError, take
from whatwhere.serve.variants_tab import VariantsTab
from whatwhere.serve.words import plainly

KEPT = 900  # seconds for which files lie in the page's folder
FORGET = 3600  # seconds after which a visitor's input is forgotten


def build(site: Site) -> gr.Blocks:
    """The page."""
    served, offered = site.served, site.offered
    notes = "\n\n".join(map(plainly, site.notes))
    with gr.Blocks(
        title=f"{site.name} · whatwhere", fill_width=True, delete_cache=(KEPT, KEPT)
    ) as page:
        given = gr.State(None, time_to_live=FORGET)
        gr.Markdown(f"## {plainly(site.name)}\n{notes}")
        with gr.Row():
            with gr.Column(scale=1, min_width=280):
                file, said, gallery = _inputs(offered)
            with gr.Column(scale=3, min_width=480), gr.Tabs():
                with gr.Tab("Gates") as first:
                    gates = GatesTab(served, given)
                tabs = [first]
                variants = None
                if len(served.members) > 1:
                    with gr.Tab("Variants side by side") as second:
                        variants = VariantsTab(served, given)
                if site.report is not None:
                    with gr.Tab("The study") as third:
                        gr.HTML(_framed(site.report))
                    tabs.append(third)
        given_anew = [
            gates.show_after(file.upload(_take(site), file, [given, said, file, gallery], **QUICK)),
            gates.show_after(gallery.select(_choose(offered), None, [given, said], **QUICK)),
            gates.fill_after(page.load(lambda: _first(offered), None, [given, said], **QUICK)),
        ]
        for event in given_anew:
            if variants is not None:
                variants.show_after(event)
        if variants is not None:
            variants.show_while_open(second, tabs)
    return page


def _inputs(offered: Sequence[Input]) -> tuple[gr.File, gr.Markdown, gr.Gallery]:
    file = gr.File(
        label=f"Image, clip (up to {SECONDS // 60} min) or .npz, {MEGABYTES} MB at most",
        height=170,
        elem_id="upload",
    )
    _fetch_nothing(file)
    said = gr.Markdown("", elem_id="said")
    if offered:
        gr.Markdown("Or try a test sample:")
    gallery = gr.Gallery(
        [(thumbnail(each), each.name) for each in offered],
        show_label=False,
        columns=3,
        height=420,
        object_fit="contain",
        allow_preview=False,
        interactive=False,
        format="png",
        buttons=[],
        visible=len(offered) > 0,
        elem_id="examples",
    )
    return file, said, gallery


def _fetch_nothing(file: gr.File) -> None:
    """Have a drop zone take files alone: Gradio's downloads an address that is sent for one."""
    into_cache = file.async_move_resource_to_block_cache

    async def of_a_file(url_or_file_path: Any) -> Any:
        if is_http_url_like(str(url_or_file_path)):
            raise gr.Error(
                "expected a file, got an address, which is not fetched", print_exception=False
            )
        return await into_cache(url_or_file_path)

    file.async_move_resource_to_block_cache = of_a_file


def _take(site: Site) -> Callable[[str], tuple[Any, ...]]:
    """What reads a file that was dropped, says so, and empties the zone for the next."""

    def taken(path: str) -> tuple[Any, ...]:
        name = Path(path).name
        try:
            given = take(Path(path), site.served.preparation, volumes=site.volumes)
        except UploadError as error:
            refused = f"⚠️ **{plainly(name)}** was not taken: {plainly(str(error))}"
            return gr.skip(), refused, None, gr.skip()
        return given, f"Shown: **{plainly(name)}**", None, gr.Gallery(selected_index=None)

    return taken


def _choose(offered: Sequence[Input]) -> Callable[..., tuple[Input, str]]:
    def choose(event: gr.SelectData) -> tuple[Input, str]:
        chosen = offered[event.index]
        return chosen, f"Shown: a test sample of class **{plainly(chosen.name)}**"

    return choose


def _first(offered: Sequence[Input]) -> tuple[Input | None, str]:
    if not offered:
        return None, "Drop a file to begin."
    return offered[0], f"Shown: a test sample of class **{plainly(offered[0].name)}**"


def _framed(report: str) -> str:
    """A whole page inside this one, which can run nothing and reach nothing."""
    return (
        f'<iframe title="report" sandbox srcdoc="{escape(report)}" '
        'style="width:100%;height:78vh;border:0;background:#fff"></iframe>'
    )
