"""Why MLflow did not take something, in words, and whether it ever will."""

from mlflow.exceptions import MlflowException, RestException
from requests.exceptions import HTTPError, Timeout

_REFUSALS = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_DOES_NOT_EXIST", "INVALID_STATE"}
_LATER = {408, 429}  # statuses of the 400s that only ask for patience
_PROXY = "API request to endpoint"  # how MLflow begins to quote an error page of something in front of the server


def is_refusal(error: Exception) -> bool:
    """Whether the very same record would be refused again. Missing rights and bad gateways may be mended."""
    if isinstance(error, NotImplementedError):  # by an old server
        return True
    servers_word = isinstance(error, RestException) or _PROXY not in str(error)
    return getattr(error, "error_code", None) in _REFUSALS and servers_word


def is_wrong_setting(error: Exception) -> bool:
    """Whether a server answers, but not as MLflow's does to somebody with the right address and credentials."""
    status = 500
    if isinstance(error, HTTPError) and error.response is not None:
        status = error.response.status_code
    elif isinstance(error, MlflowException):
        status = error.get_http_status_code()
    return 400 <= status < 500 and status not in _LATER


def reason(error: Exception) -> str:
    """One line: what the network said, without the layers of libraries around it."""
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:
        chain.append(cause)
        inner = next((part for part in cause.args if isinstance(part, Exception)), None)
        cause = cause.__cause__ or cause.__context__ or getattr(cause, "reason", None) or inner
    if any(isinstance(part, TimeoutError | Timeout) for part in chain):
        return "no answer in time"
    for part in chain:
        if isinstance(part, OSError) and part.strerror:
            return f"{part.strerror}: {part.filename}" if part.filename else part.strerror
    said = chain[-1] if str(error).startswith(_PROXY[:14]) else error
    return (str(said) or type(said).__name__).splitlines()[0][:200]
