import socket

import mlflow
import pytest
from mlflow.exceptions import MlflowException, RestException
from mlflow.protos.databricks_pb2 import BAD_REQUEST
from requests import HTTPError, Response

from mrt_pipeline.tracking.failures import is_refusal, is_wrong_setting, reason


def error_of(call):
    with pytest.raises(Exception) as caught:
        call()
    return caught.value


@pytest.fixture
def silent_port():
    """Connections are accepted, and never answered."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening.getsockname()[1]


def test_what_the_network_says_is_said_in_a_few_words(tracking_at, silent_port, tmp_path):
    for uri, said in (
        ("http://127.0.0.1:9", "Connection refused"),
        (f"http://127.0.0.1:{silent_port}", "no answer in time"),
        ("http://nowhere.invalid", "Name or service not known|name resolution"),
    ):
        tracking_at(uri, timeout=1)
        error = error_of(lambda: mlflow.MlflowClient().get_experiment_by_name("x"))
        assert any(part in reason(error) for part in said.split("|")), reason(error)
        assert not is_refusal(error) and not is_wrong_setting(error)
    missing = error_of((tmp_path / "missing").read_text)
    assert reason(missing) == f"No such file or directory: {tmp_path / 'missing'}"
    assert reason(TimeoutError()) == "no answer in time" and reason(KeyError("key")) == "'key'"


@pytest.mark.parametrize(
    ("code", "refused", "wrong"),
    [
        ("INVALID_PARAMETER_VALUE", True, True),
        ("RESOURCE_DOES_NOT_EXIST", True, True),
        ("PERMISSION_DENIED", False, True),  # a token may have expired
        ("UNAUTHENTICATED", False, True),
        ("INTERNAL_ERROR", False, False),
        ("TEMPORARILY_UNAVAILABLE", False, False),
        ("REQUEST_LIMIT_EXCEEDED", False, False),
    ],
)
def test_a_servers_own_word_decides_what_becomes_of_a_record(code, refused, wrong):
    error = RestException({"error_code": code, "message": "m"})
    assert (is_refusal(error), is_wrong_setting(error)) == (refused, wrong)


def test_an_error_page_of_a_proxy_refuses_nothing():
    page = MlflowException(
        "API request to endpoint /x failed with error code 400 != 200. Response body: '<html>'", BAD_REQUEST
    )
    assert not is_refusal(page)
    response = Response()
    response.status_code = 413
    assert not is_refusal(HTTPError("too large", response=response))
