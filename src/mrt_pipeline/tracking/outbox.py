"""Records on their way to the tracking server: a server that is down or slow must not stop a training.

What cannot be sent waits, in order, and is tried again later: with the next record once a while has passed, and at the
end of the run.
"""

import logging
import time
from collections import deque
from collections.abc import Callable

from mlflow.exceptions import MlflowException

logger = logging.getLogger(__name__)
_UNREACHABLE = (MlflowException, OSError)  # the latter are the network's
_REFUSALS = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_DOES_NOT_EXIST", "PERMISSION_DENIED", "INVALID_STATE"}


class Outbox:
    """retry_after: seconds to leave a server alone that has failed. clock: seconds that only grow."""

    def __init__(self, retry_after: float = 60.0, clock: Callable[[], float] = time.monotonic):
        self._retry_after, self._clock = retry_after, clock
        self._waiting: deque[Callable[[], object]] = deque()
        self._not_before = float("-inf")

    def __len__(self) -> int:
        return len(self._waiting)

    def send(self, record: Callable[[], object]) -> None:
        """Send a record, after those that wait. It must carry all that it needs: run, step, time."""
        self._waiting.append(record)
        if self._clock() >= self._not_before:
            self.flush()

    def flush(self) -> int:
        """Try to send what waits. Returns how many records still do."""
        while self._waiting:
            try:
                self._waiting[0]()
            except _UNREACHABLE as error:
                reason = (str(error) or type(error).__name__).splitlines()[0]
                if getattr(error, "error_code", None) not in _REFUSALS:
                    logger.warning("MLflow cannot be reached (%s): %d records wait for it", reason, len(self._waiting))
                    self._not_before = self._clock() + self._retry_after
                    break
                logger.error("MLflow refuses a record, which is left out: %s", reason)
            self._waiting.popleft()
        return len(self._waiting)


outbox = Outbox()
"""That of this process."""
