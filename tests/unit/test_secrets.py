"""Credentials in URLs are neither shown nor stored."""

from __future__ import annotations

from pathlib import Path

import pytest

from conf.errors import ConfigError
from conf.secrets import without_secrets
from jobs.cli import main
from jobs.open_job import open_job
from jobs.run import prepare

SECRETS = [
    "https://user:hunter2@host/prompts.parquet",
    "https://hunter2@host/prompts.parquet",
    "sftp://user:hunter2@host/prompts.parquet",
    "zip://a.csv::https://user:hunter2@host/all.zip",
    "https://b.s3.amazonaws.com/p.csv?X-Amz-Credential=hunter2&X-Amz-Signature=hunter2",
    "https://b.s3.amazonaws.com/p.csv?AWSAccessKeyId=hunter2&Expires=9&Signature=hunter2",
    "https://account.blob.core.windows.net/c/p.csv?sv=2024&sig=hunter2",
    "https://storage.googleapis.com/b/p.csv?X-Goog-Signature=hunter2",
    "https://host/p.csv?access_token=hunter2",
]
OPEN = [
    "/home/me@work/out",
    "s3://bucket/prompts@2024.parquet",
    "https://host/p.csv?version=3&design=a",
    "abfs://container@account.dfs.core.windows.net/out",
    "file:///home/me@work/p.csv",
]


@pytest.mark.parametrize("url", SECRETS)
def test_credentials_of_a_url_are_masked_and_the_rest_stays(url: str) -> None:
    masked = without_secrets(f"cannot read {url} , which is away")
    assert "hunter2" not in masked
    assert "…" in masked
    assert masked.startswith("cannot read ")
    assert masked.endswith(" , which is away")


@pytest.mark.parametrize("url", OPEN)
def test_a_path_without_credentials_is_shown_as_it_is(url: str) -> None:
    assert without_secrets(url) == url


@pytest.mark.parametrize("url", SECRETS)
@pytest.mark.parametrize("key", ["input.path", "output.path"])
def test_a_path_that_would_be_stored_with_its_credentials_is_refused(key: str, url: str) -> None:
    other = "output.path" if key == "input.path" else "input.path"
    with pytest.raises(ConfigError, match=rf"^{key} .* carries credentials, which would") as caught:
        prepare([f"{key}={url}", f"{other}=x", "engine=simulated"])
    assert "hunter2" not in str(caught.value)
    assert "storage.options.*" in str(caught.value)
    assert "environment" in str(caught.value)


@pytest.mark.parametrize("url", OPEN)
def test_a_path_without_credentials_is_taken(url: str) -> None:
    assert prepare([f"input.path={url}", "output.path=x", "engine=simulated"]).input.path == url


def test_nothing_is_written_for_an_input_behind_a_signed_link(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    assert main(["run", f"input.path={SECRETS[4]}", f"output.path={output}"]) == 2
    assert "hunter2" not in capsys.readouterr().err
    assert not output.exists()


def test_the_output_of_a_later_command_may_carry_none_either() -> None:
    with pytest.raises(ConfigError, match=r"^OUTPUT sftp://…@host/out carries credentials"):
        open_job("sftp://user:hunter2@host/out")
