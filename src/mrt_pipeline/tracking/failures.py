"""Why MLflow did not take something, in words, and whether it ever will."""

from mlflow.exceptions import MlflowException, RestException
from requests.exceptions import HTTPError, Timeout

_REFUSALS = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_DOES_NOT_EXIST", "INVALID_STATE"}
_WRONG_SETTING = range(400, 500)  # HTTP statuses: the server is there and says that the request is wrong
_LATER = {408, 429}  # of these, the ones that ask for patience


def is_refusal(error: Exception) -> bool:
    """Whether the very same record would be refused again. Missing rights and bad gateways may be mended."""
    return getattr(error, "error_code", None) in _REFUSALS and not _is_proxy(error)


def is_wrong_setting(error: Exception) -> bool:
    """Whether a server answers, but not as MLflow's does to somebody with the right address and credentials."""
    if isinstance(error, HTTPError) and error.response is not None:
        status = error.response.status_code
    else:
        status = error.get_http_status_code() if isinstance(error, MlflowException) else 500
    return status in _WRONG_SETTING and status not in _LATER


def reason(error: Exception) -> str:
    """One line: what the network said, without the layers of libraries around it."""
    chain, cause = [], error
    while cause is not None and cause not in chain:
        chain.append(cause)
        inner = next((part for part in cause.args if isinstance(part, Exception)), None)
        cause = cause.__cause__ or cause.__context__ or getattr(cause, "reason", None) or inner
    if any(isinstance(part, TimeoutError | Timeout) for part in chain):
        return "no answer in time"
    for part in chain:
        if isinstance(part, OSError) and part.strerror:
            return f"{part.strerror}: {part.filename}" if part.filename else part.strerror
    said = chain[-1] if str(error).startswith("API request to") else error
    return (str(said) or type(said).__name__).splitlines()[0][:200]


def _is_proxy(error: Exception) -> bool:
    """An error page of something in front of the server is not the server's word."""
    return not isinstance(error, RestException) and "API request to endpoint" in str(error)
