"""The Model YAML: whose adapters, in which directories."""

from __future__ import annotations

from pathlib import Path

import pytest

from lora.adapter import Origin, Wanted
from lora.model.document import ModelFileError, adapters_of, cache_path

pytestmark = pytest.mark.unit

LORA_DIR = Path("/lora")
SQL = "s3://aios_models/deepseek-ai/DeepSeek-V3-W8A8/vllm-ascend-lora"
MODEL = f"""\
apiVersion: registry.volcano.sh/v1alpha1
kind: Model
metadata: {{name: deepseek}}
spec:
  name: deepseek
  owner: example
  backends:
    - name: one
      type: vLLM
      modelURI: s3://bucket/model
      cacheURI: hostpath:///tmp/test
      env: [{{name: ENDPOINT, value: "https://obs.test.com"}}]
      workers: [{{type: server, pods: 1}}]
      loraAdapters:
        - name: lora-sql
          artifactURL: {SQL}
"""


def read(text: str, backend: str | None = None) -> list[Wanted]:
    return adapters_of(text.encode(), backend=backend, lora_dir=LORA_DIR)


def test_the_seeds_model_gives_its_adapter() -> None:
    """The directory is the controller's: cache path and MD5 of the artifactURL."""
    path = Path("/tmp/test/11e9a15be1e19ff056520bf67eaeb688")

    assert read(MODEL) == [Wanted("lora-sql", path, SQL, Origin.MODEL)]


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("hostpath:///tmp/cache", "/tmp/cache"),
        ("hostpath:///cache/", "/cache"),
        ("hostpath://tmp/test", "/tmp/test"),
        ("pvc://model-cache", "/model-cache"),
        ("pvc://claim/sub/dir/", "/claim/sub/dir"),
    ],
)
def test_cache_paths_are_the_controllers(uri: str, path: str) -> None:
    """Host and path, from the root."""
    assert cache_path(uri) == Path(path)


def test_without_a_cache_the_adapters_have_a_directory_of_their_own() -> None:
    """It is --lora-dir."""
    text = "kind: Model\nspec: {backends: [{loraAdapters: [{name: a, artifactURL: org/sql-lora}]}]}\n"

    (wanted,) = read(text)

    assert wanted.path.parent == LORA_DIR


def test_a_booster_has_one_backend() -> None:
    """kind: ModelBooster, spec.backend."""
    text = "kind: ModelBooster\nspec: {backend: {loraAdapters: [{name: a, artifactURL: 'hf://org/sql-lora'}]}}\n"

    (wanted,) = read(text)

    assert wanted.path == LORA_DIR / "32ed1debd874a130a8efb50df1b76825"


def test_of_several_documents_the_model_counts() -> None:
    """Others in the file are passed over."""
    assert [one.name for one in read("kind: Secret\n---\n" + MODEL)] == ["lora-sql"]


def test_a_backend_without_adapters_wants_none() -> None:
    """No list is an empty list."""
    assert read("kind: Model\nspec: {backends: [{name: a}]}\n") == []


def test_the_backend_is_chosen_by_name() -> None:
    """Of two, the one that --backend names."""
    text = MODEL + "    - {name: two, loraAdapters: [{name: b, artifactURL: org/b}]}\n"

    assert [one.name for one in read(text, "two")] == ["b"]
    with pytest.raises(ModelFileError, match=r"several backends \(one, two\): say which with --backend"):
        read(text)
    with pytest.raises(ModelFileError, match="no backend 'three', only one, two"):
        read(text, "three")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no document of kind Model or ModelBooster"),
        ("kind: Deployment\n", "no document of kind Model or ModelBooster"),
        ("kind: Model\nspec: [\n", "not valid YAML, line 3"),
        ("kind: Model\n", "missing required field `spec`"),
        ("kind: Model\nspec: {}\n", "spec has no backend"),
        ("kind: Model\nspec: {backends: {}}\n", "Expected `array"),
        (MODEL.replace("lora-sql", "../../etc"), "adapter '../../etc': an adapter's name is"),
        (MODEL.replace(SQL, "file:///etc/passwd"), "adapter 'lora-sql': "),
        (MODEL.replace(f"          artifactURL: {SQL}\n", ""), "missing required field `artifactURL`"),
        (MODEL + f"        - {{name: lora-sql, artifactURL: '{SQL}'}}\n", "adapter 'lora-sql' is there twice"),
    ],
)
def test_a_file_that_is_no_model_says_why(text: str, problem: str) -> None:
    """One reason, with the place."""
    with pytest.raises(ModelFileError) as caught:
        read(text)
    assert problem in str(caught.value)


NESTED = "".join(f"a{number + 1}: &a{number + 1} [{', '.join([f'*a{number}'] * 10)}]\n" for number in range(9))
LARGE = {
    "values": (f"{MODEL}x: [{'[],' * 50_000}]\n", "more than 50,000 values"),
    "values by aliases": (f"a0: &a0 [x, x]\n{NESTED}{MODEL}", "more than 50,000 values"),
    "depth": (f"{MODEL}x: {'[' * 101}{']' * 101}\n", "nested more than 100 deep"),
    "a name": (MODEL.replace("lora-sql", "x" * 100_000), "lora_name has 100,000 letters; the limit is 255"),
    "a source": (MODEL.replace(SQL, f"{SQL}{'x' * 2048}"), f"source has {len(SQL) + 2048:,} bytes; the limit is 2,048"),
    "a cache": (MODEL.replace("/tmp/test", f"/{'x' * 2048}"), "cacheURI has 2,049 bytes; the limit is 2,048"),
}


@pytest.mark.parametrize(("text", "words"), LARGE.values(), ids=LARGE)
def test_what_is_too_large_is_named(text: str, words: str) -> None:
    """With its size and its limit where it has them; the message is short."""
    with pytest.raises(ModelFileError, match=words) as caught:
        read(text)

    assert len(str(caught.value)) < 2100


def test_aliases_are_read() -> None:
    """As long as they stand for little."""
    text = MODEL.replace("env: [", "env: &env [") + "    - {name: two, env: *env}\n"

    assert read(text, "one") == read(MODEL)


def test_very_many_adapters_are_read() -> None:
    """More than there is room for in the engine."""
    rows = "".join(
        f"        - {{name: a{number}, artifactURL: s3://bucket/adapters/{number}}}\n" for number in range(3000)
    )

    assert len(read(MODEL + rows)) == 3001
