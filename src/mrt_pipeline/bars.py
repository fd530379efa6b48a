"""Progress bars for whoever wants to see them; the library itself draws none.

What can last is wrapped in `bar`, which is called as tqdm is. After `show(tqdm)`, or anything that is called and
answers like it, these bars are seen.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any


class _Unseen:
    """What tqdm gives, without a bar."""

    def __init__(self, iterable: Iterable = (), **how: Any):
        self._iterable, self.n = iterable, 0.0

    def __iter__(self) -> Iterator:
        return iter(self._iterable)

    def __enter__(self) -> "_Unseen":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def update(self, n: float = 1) -> None:
        self.n += n

    def close(self) -> None:
        pass

    def set_postfix(self, **values: Any) -> None:
        pass


_shown: Callable[..., Any] | None = None


def show(bars: Callable[..., Any] | None) -> None:
    """Show progress by these: `tqdm.tqdm`, say. None: show none."""
    global _shown
    _shown = bars


def shown() -> Callable[..., Any] | None:
    """What `show` was given, for packages that draw bars of their own."""
    return _shown


def bar(*args: Any, **how: Any) -> Any:
    """Of what can last: around an iterable, or with `total` and `update`; arguments as tqdm takes them."""
    return (_shown or _Unseen)(*args, **how)
