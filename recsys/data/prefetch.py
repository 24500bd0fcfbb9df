"""A thread that makes the next items while the consumer uses the last one."""

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")

POLL_SECONDS = 0.1


class _End:
    """After the last item; holds what the thread raised."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


class _Producer(threading.Thread, Generic[T]):
    def __init__(self, make: Callable[[], Iterator[T]], depth: int) -> None:
        super().__init__(daemon=True, name="prefetch")
        self._make = make
        self.items: queue.Queue[T | _End] = queue.Queue(maxsize=depth)
        self.stop = threading.Event()

    def run(self) -> None:
        error: BaseException | None = None
        try:
            for item in self._make():
                if not self._put(item):
                    return
        except BaseException as raised:  # noqa: BLE001 - whatever it is, the consumer must see it
            error = raised
        self._put(_End(error))

    def _put(self, item: T | _End) -> bool:
        # Polling, so that the thread ends when the consumer has gone while the queue is full.
        while not self.stop.is_set():
            try:
                self.items.put(item, timeout=POLL_SECONDS)
            except queue.Full:
                continue
            return True
        return False


def prefetched(make: Callable[[], Iterator[T]], *, depth: int) -> Iterator[T]:
    """Iterate over `make()` in a thread, at most `depth` items ahead; 0 means without a thread.

    What the thread raises is raised here. The thread ends with the iteration, also when that is given up.
    """
    if depth == 0:
        yield from make()
        return
    producer = _Producer(make, depth)
    producer.start()
    try:
        while not isinstance(item := producer.items.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        producer.stop.set()
        producer.join()
