"""The download routes as callers meet them: the real console script, a real S3 server."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

import pytest

from simulators.misbehaving.proxy import BadProxy
from simulators.misbehaving.proxy_faults import stalls
from simulators.s3 import OWNER
from simulators.waiting import wait_until
from tests.harness.downloader import contents, pod
from tests.harness.runtime import Runtime

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import requests

    from simulators.s3 import Bucket, S3Server

MODEL: Final = {"config.json": b'{"a": 1}', "sub/weights.safetensors": bytes(range(256)) * 4096}
NOWHERE: Final = "http://127.0.0.1:9"
DOWNLOAD: Final = "/v1/download_model"


@pytest.fixture(scope="module")
def bucket(s3: S3Server) -> Bucket:
    made = s3.bucket()
    made.put_many(MODEL, prefix="model/")
    made.put("model-old/other.bin", b"old")
    return made


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def runtime(s3: S3Server, root: Path) -> Iterator[Runtime]:
    with Runtime(NOWHERE, "--write-root", str(root), variables=pod(s3.url, OWNER)) as running:
        yield running
        assert OWNER.secret not in running.log


def post(runtime: Runtime, body: object) -> requests.Response:
    data = body if isinstance(body, bytes) else json.dumps(body)
    return runtime.session.post(runtime.url + DOWNLOAD, data=data, timeout=100)


def test_a_model_is_fetched_while_the_caller_waits(runtime: Runtime, bucket: Bucket, root: Path) -> None:
    """200 when it is all there; nothing of a like-named prefix comes along."""
    answer = post(runtime, {"source": f"s3://{bucket.name}/model", "output_dir": str(root / "sync")})

    assert answer.status_code == 200, answer.text
    assert answer.json()["download"]["state"] == "done"
    assert contents(root / "sync") == MODEL


def test_a_download_in_the_background_says_where_to_look(runtime: Runtime, bucket: Bucket, root: Path) -> None:
    """202 with a Location; it shows bytes and files until it is done, and is in the list."""
    body = {"source": f"s3://{bucket.name}/model", "output_dir": str(root / "async"), "async_download": True}

    accepted = post(runtime, body)

    assert accepted.status_code == 202
    location = accepted.headers["Location"]
    wait_until(lambda: runtime.get(location).json()["state"] == "done", "it is done", seconds=60)
    job = runtime.get(location).json()
    assert (job["bytes_done"], job["files"], job["error"]) == (sum(map(len, MODEL.values())), 2, None)
    assert job["id"] in [one["id"] for one in runtime.get("/v1/downloads").json()["downloads"]]
    assert contents(root / "async") == MODEL


def test_patterns_choose_files(runtime: Runtime, bucket: Bucket, root: Path) -> None:
    """allow_patterns and ignore_patterns."""
    body = {
        "source": f"s3://{bucket.name}/model",
        "output_dir": str(root / "some"),
        "allow_patterns": ["*.json"],
        "ignore_patterns": ["sub/*"],
    }

    assert post(runtime, body).status_code == 200
    assert set(contents(root / "some")) == {"config.json"}


def test_the_same_asked_twice_at_once_is_one_download(s3: S3Server, bucket: Bucket, root: Path) -> None:
    """Both callers get the one answer."""
    with BadProxy(s3.netloc) as proxy, Runtime(NOWHERE, variables=pod(proxy.url, OWNER)) as runtime:
        body = {"source": f"s3://{bucket.name}/model", "output_dir": str(root / "twice")}
        with ThreadPoolExecutor(2) as callers:
            answers = list(callers.map(lambda _: post(runtime, body), range(2)))

        assert [answer.status_code for answer in answers] == [200, 200]
        assert len({answer.json()["download"]["id"] for answer in answers}) == 1


def test_a_download_can_be_cancelled(s3: S3Server, bucket: Bucket, root: Path) -> None:
    """DELETE ends it; scrapes go on while it hangs."""
    with BadProxy(s3.netloc) as proxy, Runtime(NOWHERE, variables=pod(proxy.url, OWNER)) as runtime:
        proxy.misbehave(stalls(after=0), f"/{bucket.name}/model/*")
        body = {"source": f"s3://{bucket.name}/model", "output_dir": str(root / "stuck"), "async_download": True}
        location = post(runtime, body).headers["Location"]
        wait_until(lambda: runtime.get(location).json()["state"] == "running", "it runs")
        wait_until(lambda: 'downloads_in_progress{scheme="s3"} 1.0' in runtime.page(), "the metric shows it")

        deleted = runtime.session.delete(runtime.url + location, timeout=30)

        assert deleted.status_code == 200
        wait_until(lambda: runtime.get(location).json()["state"] == "cancelled", "it is cancelled")
        wait_until(lambda: 'downloads_total{scheme="s3",outcome="cancelled"} 1.0' in runtime.page(), "it is counted")
        assert not (root / "stuck" / "config.json").exists()


def test_another_source_is_refused_until_it_is_allowed(runtime: Runtime, bucket: Bucket, root: Path) -> None:
    """409 that names what is there; then the job counts and names what is gone, and so does the log."""
    target = root / "switched"
    body = {"source": f"s3://{bucket.name}/model", "output_dir": str(target)}
    assert post(runtime, body).status_code == 200
    other = body | {"source": f"s3://{bucket.name}/model-old"}

    refused = post(runtime, other)
    found = contents(target)
    allowed = post(runtime, other | {"replace": True})

    assert (refused.status_code, refused.json()["code"]) == (409, "target_holds_other")
    assert all(word in refused.json()["detail"] for word in (f"holds s3://{bucket.name}/model", "config.json"))
    assert found == MODEL
    assert allowed.status_code == 200, allowed.text
    assert contents(target) == {"other.bin": b"old"}
    job = allowed.json()["download"]
    assert (job["files_removed"], job["removed"]) == (2, sorted(MODEL))
    assert runtime.get(f"/v1/downloads/{job['id']}").json()["removed"] == sorted(MODEL)
    assert f"directory={target} source=s3://{bucket.name}/model-old files=2 names=config.json, sub" in runtime.log


@pytest.mark.parametrize(("said", "status"), [({}, 200), ({"replace": False}, 409), ({"replace": None}, 200)])
def test_the_pod_may_allow_it_for_all_who_do_not_say(
    s3: S3Server, bucket: Bucket, tmp_path: Path, said: dict[str, bool], status: int
) -> None:
    """`DOWNLOAD_REPLACE`; who says no is heard."""
    body = {"output_dir": str(tmp_path / "model")}
    with Runtime(NOWHERE, variables=pod(s3.url, OWNER, DOWNLOAD_REPLACE="true")) as runtime:
        assert post(runtime, body | {"source": f"s3://{bucket.name}/model"}).status_code == 200

        answer = post(runtime, body | said | {"source": f"s3://{bucket.name}/model-old"})

    assert answer.status_code == status, answer.text


def test_a_callers_endpoint_gets_none_of_the_pods_credentials(runtime: Runtime, bucket: Bucket, root: Path) -> None:
    """Who names an endpoint brings credentials of their own."""
    with BadProxy() as attacker:
        body = {
            "source": f"s3://{bucket.name}/model",
            "output_dir": str(root / "stolen"),
            "config": {"endpoint": attacker.url},
        }

        answer = post(runtime, body)

        assert answer.status_code in (403, 404, 502)
        assert OWNER.access not in attacker.heard()
        assert OWNER.secret not in attacker.heard()


BAD: Final = {
    "no JSON": (b"{", 400, "bad_request"),
    "no source": ({"output_dir": "{root}/a"}, 400, "bad_request"),
    "no directory": ({"source": "s3://bucket/c"}, 400, "bad_request"),
    "an unknown field": ({"source": "s3://bucket/c", "output_dir": "{root}/a", "x": 1}, 400, "bad_request"),
    "a scheme that nobody has": ({"source": "ftp://b/c", "output_dir": "{root}/a"}, 400, "invalid_source"),
    "a system directory": ({"source": "s3://bucket/c", "output_dir": "/etc/x"}, 400, "forbidden_target"),
    "outside the write roots": ({"source": "s3://bucket/c", "output_dir": "/var/models"}, 400, "forbidden_target"),
    "a relative directory": ({"source": "s3://bucket/c", "output_dir": "a"}, 400, "forbidden_target"),
    "climbing out": ({"source": "s3://bucket/c", "output_dir": "{root}/../x"}, 400, "forbidden_target"),
    "a config that is none": (
        {"source": "s3://bucket/c", "output_dir": "{root}/a", "config": "x"},
        400,
        "invalid_config",
    ),
    "a config without end": (
        {"source": "s3://bucket/c", "output_dir": "{root}/a", "config": "[" * 60_000},
        400,
        "invalid_config",
    ),
    "a place of work": ({"source": "s3://bucket/c", "output_dir": "{root}/.a.kthena"}, 400, "forbidden_target"),
    "no worker": ({"source": "s3://bucket/c", "output_dir": "{root}/a", "max_workers": 0}, 400, "usage"),
    "nothing there": ({"source": "s3://{bucket}/nothing", "output_dir": "{root}/a"}, 404, "not_found"),
}


@pytest.mark.parametrize(("body", "status", "code"), BAD.values(), ids=BAD)
def test_each_mistake_has_its_own_answer(
    runtime: Runtime, bucket: Bucket, root: Path, body: object, status: int, code: str
) -> None:
    """A problem document with a stable code; no directory is left."""
    if isinstance(body, dict):
        body = {
            key: value.replace("{root}", str(root)).replace("{bucket}", bucket.name)
            if isinstance(value, str)
            else value
            for key, value in body.items()
        }

    answer = post(runtime, body)

    assert answer.headers["Content-Type"] == "application/problem+json"
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert not contents(root / "a")


def test_a_download_that_nobody_knows_is_404(runtime: Runtime) -> None:
    """For GET and for DELETE."""
    assert runtime.get("/v1/downloads/nope").status_code == 404
    assert runtime.session.delete(f"{runtime.url}/v1/downloads/nope", timeout=30).status_code == 404


def test_downloads_are_counted(runtime: Runtime, bucket: Bucket, root: Path) -> None:
    """Bytes by scheme, ends by outcome, and the room that is left."""
    post(runtime, {"source": f"s3://{bucket.name}/model", "output_dir": str(root / "counted")})

    page = runtime.page()

    assert f'kthena_runtime_storage_free_bytes{{root="{root}"}}' in page
    counts = {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in page.splitlines() if line[:1] != "#"}
    assert counts['kthena_runtime_downloads_total{scheme="s3",outcome="done"}'] >= 1
    assert counts['kthena_runtime_download_bytes_total{scheme="s3"}'] >= sum(map(len, MODEL.values()))
