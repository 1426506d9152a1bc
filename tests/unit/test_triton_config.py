"""The configuration of engine=triton: what is accepted, and what each refusal says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conf.errors import ConfigError, OptionRefused
from conf.schema import RunConfig
from conf.triton_config import addresses_of
from jobs.configure import compose
from operators.triton_client.access import access_of
from tests.certificates import write_certificates

URL = "triton.url=grpc://gpu-1:8001"


def asked(*overrides: str) -> RunConfig:
    return compose(["engine=triton", "input.path=none", "output.path=none", *overrides])


def test_several_servers_are_named_in_one_url_each_once() -> None:
    config = asked("triton.url=grpc://a:8001, grpcs://b.example:443/,grpc://a:8001,grpc://[::1]:9")
    found = addresses_of(config.triton)
    assert [(one.target, one.tls, one.host) for one in found] == [
        ("a:8001", False, "a"),
        ("b.example:443", True, "b.example"),
        ("[::1]:9", False, "::1"),
    ]
    assert str(found[1]) == "grpcs://b.example:443"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], r"^engine=triton needs triton\.url; expected grpc://host:port, or grpcs://host:port "),
        (
            ["triton.url=http://gpu-1:8000"],
            r"^triton\.url is 'http://gpu-1:8000'; expected grpc://host:port.*its HTTP port is an",
        ),
        (["triton.url=grpc://gpu-1"], r"^triton\.url is 'grpc://gpu-1'; expected grpc://host:port"),
        (["triton.url=grpc://gpu-1:99999"], r"'grpc://gpu-1:99999': Port out of range.*expected"),
        (
            ["triton.url=grpc://gpu-1:8001/v2/models"],
            r"'grpc://gpu-1:8001/v2/models', which names more than a server; expected",
        ),
        (
            ["triton.url=grpc://me:secret@gpu-1:8001"],
            r"^triton\.url grpc://…@gpu-1:8001 carries credentials, .* give a token as "
            r"triton\.headers\.authorization=NAME_OF_AN_ENVIRONMENT_VARIABLE$",
        ),
        (
            [URL, "triton.root_certificates=ca.pem"],
            r"^triton\.root_certificates is for servers with TLS, and triton\.url has none; give "
            r"grpcs://gpu-1:8001$",
        ),
        (
            ["triton.url=grpcs://gpu-1:8001", "triton.private_key=key.pem"],
            r"^triton\.certificate_chain is not set; expected triton\.private_key and "
            r"triton\.certificate_chain together$",
        ),
        (
            [URL, "triton.owned=true", "cluster.workers=2"],
            r"^cluster\.workers is 2; expected 1: with triton\.owned=true one worker asks all ",
        ),
        (
            [URL, "engine.max_batch=4"],
            r"^engine\.max_batch=4 is nothing that engine=triton can do: a Triton server loads its "
            r"model as it was exported; leave the key out",
        ),
        ([URL, "triton.timeout_s=0"], r"^triton\.timeout_s is 0.*; expected at least 0\.1$"),
    ],
)
def test_what_cannot_be_is_refused_in_words(given: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        asked(*given)


def test_a_header_is_named_by_its_variable_and_its_value_is_never_repeated() -> None:
    with pytest.raises(ConfigError) as refused:
        asked(URL, "triton.headers.authorization=Bearer s3cr3t")
    assert "s3cr3t" not in str(refused.value)
    assert "triton.headers.authorization is no name of an environment variable" in str(
        refused.value
    )


def test_headers_come_from_the_environment_and_only_their_names_are_written() -> None:
    config = asked(URL, "triton.headers.Authorization=TRITON_TOKEN")
    access = access_of(config.triton, {"TRITON_TOKEN": "Bearer s3cr3t"})
    assert access.headers == {"authorization": "Bearer s3cr3t"}
    assert "s3cr3t" not in repr(access) + json.dumps(config.to_mapping())
    with pytest.raises(
        OptionRefused,
        match=r"triton\.headers\.Authorization is in the environment variable TRITON_TOKEN, which "
        r"is not set here; .* set it for the command and for all workers",
    ):
        access_of(config.triton, {})


def test_a_certificate_that_is_not_here_is_named() -> None:
    config = asked("triton.url=grpcs://a:1", "triton.root_certificates=/no/ca.pem")
    with pytest.raises(
        OptionRefused, match=r"triton\.root_certificates=/no/ca\.pem cannot be read here \(No such"
    ):
        access_of(config.triton, {})


def test_what_is_no_certificate_is_told_before_any_server_is_asked(tmp_path: Path) -> None:
    ours, others = write_certificates(tmp_path / "ours"), write_certificates(tmp_path / "others")
    url = "triton.url=grpcs://a:1"
    right = [
        f"triton.root_certificates={ours.authority}",
        f"triton.private_key={ours.key}",
        f"triton.certificate_chain={ours.certificate}",
    ]
    assert access_of(asked(url, *right).triton, {}).private_key == ours.key.read_bytes()
    with pytest.raises(
        OptionRefused,
        match=rf"triton\.root_certificates={ours.key} holds no certificate \(.*\); expected those",
    ):
        access_of(asked(url, f"triton.root_certificates={ours.key}").triton, {})
    with pytest.raises(
        OptionRefused,
        match=rf"^triton\.private_key={others.key} and triton\.certificate_chain="
        rf"{ours.certificate} cannot be used together \(.*\); expected a key without a password ",
    ):
        access_of(asked(url, *right, f"triton.private_key={others.key}").triton, {})


def test_where_servers_are_is_no_part_of_what_a_job_makes_but_their_model_is() -> None:
    plain = asked(URL).digest()
    assert asked("triton.url=grpc://b:1", "triton.timeout_s=9", "job.priority=2").digest() == plain
    assert asked(URL, "triton.model=other").digest() != plain
