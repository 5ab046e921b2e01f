"""Credentials: what is taken from where, what is shown, and whose go where."""

from __future__ import annotations

import json

import pytest

from storage.errors import ConfigError
from storage.request.config import Config, Secret
from storage.request.download import Action, DownloadRequest

pytestmark = pytest.mark.unit

POD = {
    "HF_AUTH_TOKEN": "hf_pod", "HF_ENDPOINT": "https://hub.pod/", "ACCESS_KEY": "AK", "SECRET_KEY": "SK",
    "ENDPOINT": "obs.pod", "AWS_REGION": "eu-1", "S3_ADDRESSING_STYLE": "Path", "HF_REVISION": " ",
}  # fmt: skip


def pod() -> Config:
    return Config.from_environ(POD)


def test_the_environment() -> None:
    """Empty variables count as not set, an endpoint without a scheme is https."""
    assert pod() == Config(
        hf_token=Secret("hf_pod"), hf_endpoint="https://hub.pod", access_key=Secret("AK"), secret_key=Secret("SK"),
        endpoint="https://obs.pod", region="eu-1", addressing_style="path",
    )  # fmt: skip


@pytest.mark.parametrize("data", [{"hf_token": "t", "endpoint": None}, '{"hf_token": "t", "endpoint": ""}'])
def test_a_config_is_an_object_or_a_text(data: object) -> None:
    """Both exist in the wild."""
    assert Config(hf_token=Secret("t")) == Config.from_mapping(data)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("{", "not JSON"),
        ("[]", "JSON object"),
        ({"token": "x"}, "config.token"),
        ({"hf_token": 5}, "config.hf_token"),
        ({"access_key": "a"}, "come together"),
        ({"endpoint": "ftp://x"}, "config.endpoint"),
        ({"endpoint": "https://a:b@x"}, "no credentials"),
        ({"hf_token": "a\nb"}, "config.hf_token"),
        ({"addressing_style": "odd"}, "addressing_style"),
        ({"anonymous": "maybe"}, "config.anonymous"),
    ],
)
def test_an_error_names_the_key(data: object, words: str) -> None:
    """And never what is in it."""
    with pytest.raises(ConfigError, match=words):
        Config.from_mapping(data)


def test_a_text_that_is_no_json_is_not_quoted() -> None:
    """It may hold a secret."""
    with pytest.raises(ConfigError) as raised:
        Config.from_mapping('{"hf_token": "hf_secret"')

    assert "hf_secret" not in str(raised.value)
    assert raised.value.__cause__ is None


def test_secrets_are_not_shown() -> None:
    """Neither by a config nor by a request."""
    shown = repr(DownloadRequest("org/model", "/models/m", pod())) + str(pod())

    assert not [secret for secret in ("hf_pod", "'AK'", "'SK'") if secret in shown]


def test_a_stranger_with_an_endpoint_gets_no_credentials() -> None:
    """Neither the pod's keys nor those of the default chain."""
    config = pod().for_caller(Config(endpoint="http://attacker", hf_endpoint="http://attacker"))

    assert (config.access_key, config.secret_key, config.hf_token, config.ambient) == (None, None, None, False)


def test_a_stranger_with_an_endpoint_brings_their_own() -> None:
    """And they go there."""
    caller = Config(endpoint="http://theirs", access_key=Secret("a"), secret_key=Secret("s"))

    config = pod().for_caller(caller)

    assert (config.access_key, config.endpoint, config.hf_token) == (Secret("a"), "http://theirs", Secret("hf_pod"))


def test_a_caller_who_names_the_pods_endpoint_is_no_stranger() -> None:
    """Written as the pod has it, or with a slash at its end."""
    caller = Config.from_mapping({"endpoint": "https://obs.pod/", "hf_endpoint": "https://hub.pod"})

    assert pod() == pod().for_caller(caller)


def test_the_default_hub_is_the_pods_hub() -> None:
    """Where the pod names none."""
    config = Config(hf_token=Secret("t")).for_caller(Config(hf_endpoint="https://huggingface.co"))

    assert config.hf_token == Secret("t")


def test_keys_of_a_caller_come_without_the_pods_session_token() -> None:
    """It belongs to the pod's keys."""
    mine = Config(access_key=Secret("a"), secret_key=Secret("s"), session_token=Secret("t"))

    assert mine.merged(Config(access_key=Secret("b"), secret_key=Secret("r"))).session_token is None


def test_a_request_crosses_the_pipe() -> None:
    """Secrets in clear, as the worker needs them."""
    request = DownloadRequest(
        "org/model", "/models/m", pod(), Action.VERIFY, include=("*.json",), lock_timeout=3.0, write_roots=("/models",)
    )

    assert request == DownloadRequest.from_json(request.to_json())
    assert json.loads(request.to_json())["config"]["hf_token"] == "hf_pod"
