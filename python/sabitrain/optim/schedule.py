"""The learning rate: a pure function of the step."""

from __future__ import annotations

import math

from sabitrain.optim.settings import OptimConfig


def learning_rate(config: OptimConfig, step: int, steps: int) -> float:
    """Returns the learning rate of ``step``, counted from 0, of a run of ``steps``.

    The rate rises in a line to ``lr`` over the first ``warmup * steps`` steps, and is ``floor *
    lr`` at the last. Between:

    - ``cosine``: half a cosine (arXiv:1608.03983, without restarts);
    - ``wsd``: ``lr`` until the last ``decay * steps`` steps, in which the rate falls as 1 - sqrt of
      their progress (Hägele et al., arXiv:2405.18392, section 3): a run can be prolonged from any
      step before the fall.
    """
    warmup = math.ceil(config.warmup * steps)
    # From the first step on: a rate of 0 would waste it.
    if step < warmup:
        return config.lr * (step + 1) / warmup
    falls = (
        steps - warmup
        if config.schedule == "cosine"
        else min(steps - warmup, math.ceil(config.decay * steps))
    )
    begins = steps - falls
    if step < begins:
        return config.lr
    # The fall of a cosine begins at its highest; the stable rate of wsd is that already, so its
    # fall begins below.
    first = 0 if config.schedule == "cosine" else 1
    progress = min(1.0, (step - begins + first) / max(1, falls - 1 + first))
    left = (
        (1 + math.cos(math.pi * progress)) / 2
        if config.schedule == "cosine"
        else 1 - math.sqrt(progress)
    )
    return config.lr * (config.floor + (1 - config.floor) * left)
