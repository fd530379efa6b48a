"""Policies that MLflow keeps, by the id of the run that trained them or as registered models, fetched once."""

import re
from functools import partial
from pathlib import Path

import mlflow
from mlflow.exceptions import MlflowException

from mrt_pipeline.errors import InputError
from mrt_pipeline.keys import configuration_key
from mrt_pipeline.policy.policy import CARD
from mrt_pipeline.reuse import made_once
from mrt_pipeline.tracking.failures import reason

_FETCHED = Path("data/06_models/fetched")
_RUN = re.compile("[0-9a-f]{32}")
_MODEL = re.compile(r"models:/([^/@]+)(?:/([0-9]+|latest)|@(.+))")
ARTIFACT = "policy"
"""Where a run keeps the policy that it has trained."""


def moves_on(path: str) -> bool:
    """Whether a path leads to another policy from time to time: an alias, or the latest version."""
    found = _MODEL.fullmatch(path)
    return found is not None and (found[2] == "latest" or found[3] is not None)


def fetch_policy(path: str) -> str | None:
    """A local folder with the policy of a run id, models:/name/version, or models:/name@alias; None for other paths.

    Raises InputError in words if MLflow has none there.
    """
    try:
        if _RUN.fullmatch(path):
            if mlflow.get_run(path).info.status == "RUNNING":
                raise InputError(f"policy.path={path}: this run is not finished, so its policy may not be complete")
            uri = f"runs:/{path}/{ARTIFACT}"
        elif path.startswith("models:/"):
            uri = _version(path)
        else:
            return None
        folder = _FETCHED / configuration_key(server=mlflow.get_tracking_uri(), uri=uri)
        made_once(folder, partial(_download, uri))
    except (MlflowException, OSError) as error:
        raise InputError(
            f"MLflow at {mlflow.get_tracking_uri()} has no policy at policy.path={path}: {reason(error)}. Give the id "
            "of a finished run that has trained one, models:/<name>/<version>, or models:/<name>@<alias>"
        ) from error
    return str(folder)


def _version(path: str) -> str:
    """The registered model by its number: latest, and aliases, move on."""
    found = _MODEL.fullmatch(path)
    if not found:
        raise InputError(f"policy.path={path} is not of the form models:/<name>/<version> or models:/<name>@<alias>")
    name, version, alias = found.groups()
    client = mlflow.MlflowClient()
    if alias:
        version = client.get_model_version_by_alias(name, alias).version
    elif version == "latest":
        versions = [int(known.version) for known in client.search_model_versions(f"name = '{name}'")]
        if not versions:
            raise InputError(f"policy.path={path}: there is no registered model '{name}'")
        version = max(versions)
    return f"models:/{name}/{version}"


def _download(uri: str, folder: Path) -> None:
    mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(folder))
    cards = sorted(folder.rglob(CARD), key=lambda card: len(card.parts))
    if not cards or not any(cards[0].parent.glob("*.safetensors")):
        raise InputError(f"{uri} holds no policy of this project: there is no {CARD} in it, or no weights")
    if cards[0].parent != folder:  # MLflow may put it into a folder of its own
        for file in cards[0].parent.iterdir():
            file.rename(folder / file.name)
