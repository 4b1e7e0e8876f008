"""Progress bars on a terminal's stderr.

Bars of :func:`progress_bar` are shown only inside :func:`show_progress`, which every command enters
unless ``--quiet`` is given. Calls from Python show none, and functions need no argument for it.
"""

import contextlib
from collections.abc import Iterable, Iterator
from contextvars import ContextVar

from tqdm import tqdm

_DELAY = 2  # seconds until a bar appears
_shown = ContextVar("progress is shown", default=False)


def progress_bar(items: Iterable | None = None, **kwargs) -> tqdm:
    """tqdm's bar, over ``items`` or for ``update()``; ``kwargs`` are tqdm's."""
    disable = None if _shown.get() else True  # None: unless stderr is a terminal
    return tqdm(items, **{"delay": _DELAY, "disable": disable, **kwargs})


@contextlib.contextmanager
def show_progress(shown: bool = True) -> Iterator[None]:
    """Inside, show progress bars, or hide them."""
    before = _shown.set(shown)
    try:
        yield
    finally:
        _shown.reset(before)
