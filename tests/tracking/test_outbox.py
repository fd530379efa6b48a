import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST

from mrt_pipeline.tracking.outbox import Outbox


class Server:
    def __init__(self, error=None):
        self.up, self.received, self.tries, self.error = True, [], 0, error or MlflowException("no route to host")

    def takes(self, record):
        def send():
            self.tries += 1
            if not self.up:
                raise self.error
            self.received.append(record)

        return send


@pytest.fixture
def clock():
    return [0.0]


@pytest.fixture
def outbox(clock):
    return Outbox(retry_after=60, clock=lambda: clock[0])


@pytest.mark.parametrize("error", [MlflowException("500"), ConnectionError("refused"), TimeoutError()])
def test_what_could_not_be_sent_is_sent_later_in_order(outbox, clock, error):
    server = Server(error)
    outbox.send(server.takes(1))
    server.up = False
    outbox.send(server.takes(2))
    outbox.send(server.takes(3))
    assert server.received == [1] and len(outbox) == 2
    server.up, clock[0] = True, 61
    outbox.send(server.takes(4))
    assert server.received == [1, 2, 3, 4] and not outbox


def test_a_failing_server_is_left_alone_for_a_while(outbox, clock):
    server = Server()
    server.up = False
    for record in range(10):
        clock[0] += 1
        outbox.send(server.takes(record))
    assert server.tries == 1 and len(outbox) == 10
    assert outbox.flush() == 10 and server.tries == 2


def test_a_record_that_is_refused_does_not_hold_up_the_others(outbox):
    server = Server(MlflowException("no such run", error_code=RESOURCE_DOES_NOT_EXIST))
    server.up = False
    outbox.send(server.takes(1))
    assert not outbox
    server.up = True
    outbox.send(server.takes(2))
    assert server.received == [2]


def test_other_errors_are_not_hidden(outbox):
    server = Server(ValueError("not finite"))
    server.up = False
    with pytest.raises(ValueError, match="not finite"):
        outbox.send(server.takes(0))
