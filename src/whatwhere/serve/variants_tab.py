"""The tab of all variants of a study on one input: what each predicts, and what it looks at."""

from collections.abc import Sequence
from typing import Any

import gradio as gr

from whatwhere.inputs import Input
from whatwhere.serve.answers import probabilities
from whatwhere.serve.drawing import variant_picture
from whatwhere.serve.events import IN_TURN, QUICK, told
from whatwhere.serve.state import Served
from whatwhere.serve.words import as_bars, plainly

TOP = 3


class VariantsTab:
    """A line for each variant, of the networks of one seed; filled only while it is open."""

    def __init__(self, served: Served, given: gr.State) -> None:
        self.served = served
        self.variants = list(dict.fromkeys(each.variant for each in served.members.values()))
        seeds = sorted({each.seed for each in served.members.values()})
        deepest = max(each.sites for each in served.members.values())
        self.open = gr.State(False)
        with gr.Row():
            self.seed = gr.Radio(seeds, value=seeds[0], label="Seed", scale=1, elem_id="seed")
            self.depth = gr.Slider(
                1,
                max(2, deepest),
                value=max(1, (deepest + 1) // 2),
                step=1,
                label="Depth of the gates that are drawn",
                visible=deepest > 1,
                scale=2,
            )
        self._gives: list[Any] = []
        for variant in self.variants:
            with gr.Row(equal_height=False):
                with gr.Column(scale=1, min_width=220):
                    gr.Markdown(f"**{plainly(variant)}**")
                    bars = gr.Label(show_label=False, num_top_classes=TOP)
                picture = gr.Image(
                    show_label=False,
                    interactive=False,
                    format="png",
                    buttons=["download", "fullscreen"],
                    scale=3,
                )
            self._gives += [bars, picture]
        self._takes = [given, self.open, self.seed, self.depth]
        for each in (self.seed, self.depth):
            each.input(
                self._compare, self._takes, self._gives, trigger_mode="always_last", **IN_TURN
            )

    def show_after(self, event: Any) -> None:
        """Compare when an event is done."""
        event.then(self._compare, self._takes, self._gives, **IN_TURN)

    def show_while_open(self, tab: gr.Tab, others: Sequence[gr.Tab]) -> None:
        """Compare when this tab is opened, and nothing while another is."""
        self.show_after(tab.select(lambda: True, None, self.open, **QUICK))
        for other in others:
            other.select(lambda: False, None, self.open, **QUICK)

    @told
    def _compare(self, given: Input | None, is_open: bool, seed: int, depth: int) -> Any:
        if given is None or not is_open:
            return [gr.skip()] * len(self._gives)
        shown: list[Any] = []
        for variant in self.variants:
            title = self.served.title_of(variant, seed)
            if title is None:
                shown += [f"seed {seed} did not finish", None]
                continue
            found = self.served.places(title)
            place = found[min(depth, len(found)) - 1] if found else None
            with self.served.use(title) as model:
                shown.append(as_bars(self.served.classes, probabilities(model, given.x)))
                shown.append(variant_picture(model, given, place))
        return shown
