"""How a command imports what takes seconds: where it needs it, and without a pause."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def all_at_once() -> Iterator[None]:
    """Around imports of torch and transformers: of their half a million objects none is rubbish. To look them through
    for it, again and again, and once more at the end, was two of a run's five seconds beside its training."""
    collects, known = gc.isenabled(), len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        if len(sys.modules) > known:  # else what there is may be rubbish
            gc.freeze()
        if collects:
            gc.enable()
