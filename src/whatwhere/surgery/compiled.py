"""Compiled code and gates: torch.compile is told to look at hooks."""

import torch


def look_at_hooks() -> None:
    """Have compiled code run for a network only if that has the hooks it was compiled with.

    By itself ``torch.compile`` does not look: code compiled for a plain network would run for a
    gated one of the same classes, without its gates. What was compiled before, when nobody looked,
    is compiled anew when it runs next.
    """
    from torch._dynamo import config  # imported by then: gates are custom operations

    if config.skip_nnmodule_hook_guards:
        config.skip_nnmodule_hook_guards = False
        torch.compiler.reset()
