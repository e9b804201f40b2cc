"""The tab of one network: its prediction, its gates by depth, and gates switched off."""

from collections.abc import Sequence
from typing import Any

import gradio as gr
from torch import Tensor, nn

from whatwhere.inputs import Input
from whatwhere.serve.answers import Place, neutral, probabilities, switched_off
from whatwhere.serve.drawing import place_picture
from whatwhere.serve.events import IN_TURN, told
from whatwhere.serve.state import Served
from whatwhere.serve.words import as_bars, in_words

TOP = 5  # classes shown
ONE = "1, as if it were not there"
MEAN = "its mean over test samples"


class GatesTab:
    """The tab's components, and what fills them."""

    def __init__(self, served: Served, given: gr.State) -> None:
        self.served = served
        titles = list(served.members)
        gated = [title for title, member in served.members.items() if member.sites > 0]
        first = gated[0] if gated else titles[0]
        self.network = gr.Dropdown(
            titles, value=first, label="Network", visible=len(titles) > 1, elem_id="network"
        )
        with gr.Row():
            self.trained = gr.Label(
                label="as trained", num_top_classes=TOP, min_width=240, elem_id="trained"
            )
            self.now = gr.Label(
                label="with gates off",
                num_top_classes=TOP,
                min_width=240,
                visible=False,
                elem_id="now",
            )
        self.sentence = gr.Markdown(elem_id="sentence")
        with gr.Row():
            self.off = gr.CheckboxGroup(
                label="Switch gates off", show_select_all=True, scale=3, elem_id="off"
            )
            self.stand_in = gr.Radio(
                [ONE] if served.samples is None else [ONE, MEAN],
                value=ONE,
                label="A gate that is off gives",
                scale=1,
                min_width=220,
                elem_id="stand-in",
            )
        self.depth = gr.Slider(1, 2, value=1, step=1, elem_id="depth")
        self.picture = gr.Image(
            label="Gates at this depth",
            show_label=False,
            interactive=False,
            format="png",
            buttons=["download", "fullscreen"],
            elem_id="picture",
        )
        self._takes = [given, self.network, self.off, self.stand_in, self.depth]
        self._gives = [self.trained, self.now, self.sentence, self.depth, self.picture]
        self._listen()

    def show_after(self, event: Any) -> Any:
        """Answer when an event is done; gives the event of that."""
        return event.then(self._answer, self._takes, self._gives, **IN_TURN)

    def fill_after(self, event: Any) -> Any:
        """Offer the gates of the network when an event is done, then answer."""
        return self.show_after(
            event.then(self._offer, self.network, [self.off, self.depth], **IN_TURN)
        )

    def _listen(self) -> None:
        self.show_after(
            self.network.input(self._offer, self.network, [self.off, self.depth], **IN_TURN)
        )
        for each in (self.off, self.stand_in, self.depth):
            each.input(
                self._answer, self._takes, self._gives, trigger_mode="always_last", **IN_TURN
            )

    @told
    def _offer(self, title: str) -> tuple[Any, Any]:
        """The switches and the slider of a network."""
        found = self.served.places(title)
        choices = [
            (f"{kind} {depth}", name)
            for depth, place in enumerate(found, start=1)
            for name, kind in place.gates.items()
        ]
        middle = max(1, (len(found) + 1) // 2)
        return (
            gr.CheckboxGroup(choices=choices, value=[], visible=len(choices) > 0),
            gr.Slider(maximum=max(2, len(found)), value=middle, visible=len(found) > 1),
        )

    @told
    def _answer(
        self, given: Input | None, title: str, off: Sequence[str], stand_in: str, depth: int
    ) -> tuple[Any, ...]:
        if given is None:
            nothing = "Drop a file, or choose a sample."
            return None, gr.Label(visible=False), nothing, gr.skip(), None
        classes = self.served.classes
        found = self.served.places(title)
        place = found[min(depth, len(found)) - 1] if found else None
        with self.served.use(title) as model:
            trained = probabilities(model, given.x)
            with switched_off(model, self._values(model, title, off, stand_in)):
                now = probabilities(model, given.x) if off else None
                picture = place_picture(model, given, place)
        return (
            as_bars(classes, trained),
            gr.Label(visible=False)
            if now is None
            else gr.Label(as_bars(classes, now), visible=True),
            in_words(classes, trained, now),
            gr.Slider(label=_where(place, depth, len(found))),
            picture,
        )

    def _values(
        self, model: nn.Module, title: str, off: Sequence[str], stand_in: str
    ) -> dict[str, Tensor]:
        if stand_in == MEAN:
            means = self.served.means(title)
            return {name: means[name] for name in off}
        return neutral(model, off)


def _where(place: Place | None, depth: int, of: int) -> str:
    return "" if place is None else f"Depth {depth} of {of}: {place.site}"
