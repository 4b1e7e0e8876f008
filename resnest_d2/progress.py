"""Progress bars: on a terminal's stderr, from the third second on.

Whatever may take longer makes one by :func:`progress_bar`. It is seen inside :func:`show_progress`
alone, which every command opens unless ``--quiet`` is given: a call from Python shows none unless
it asks for it, and no function needs an argument that it only passes on.
"""

import contextlib
from collections.abc import Iterable, Iterator
from contextvars import ContextVar

from tqdm import tqdm

__all__ = ["progress_bar", "show_progress"]

_DELAY = 2  # seconds that need no bar
_shown = ContextVar("progress is shown", default=False)


def progress_bar(items: Iterable | None = None, **kwargs) -> tqdm:
    """tqdm's bar over ``items``, or one that ``update()`` moves on; ``kwargs`` are tqdm's."""
    disable = None if _shown.get() else True  # None: unless stderr is a terminal
    return tqdm(items, **{"delay": _DELAY, "disable": disable, **kwargs})


@contextlib.contextmanager
def show_progress(shown: bool = True) -> Iterator[None]:
    """Show the bars of what is done in this block, or hide them."""
    before = _shown.set(shown)
    try:
        yield
    finally:
        _shown.reset(before)
