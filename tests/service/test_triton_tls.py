"""Triton servers with TLS: who is let in, and what is said before anything starts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from jobs.cli import main
from tests.certificates import Certificates, write_certificates
from tests.cluster.job_process import write_prompts
from tests.scripted_triton import MODEL, SIZE, drain, engine_at_url, numbers, row, write_repository
from tests.triton_server import TritonServer


@dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    """``ours`` signed the certificates of ``secret`` and ``mutual``, ``others`` is a stranger's."""

    ours: Certificates
    others: Certificates
    secret: TritonServer
    mutual: TritonServer
    plain: TritonServer


@pytest.fixture(scope="module")
def servers(triton: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    folder = tmp_path_factory.mktemp("tls")
    ours, others = write_certificates(folder / "ours"), write_certificates(folder / "others")
    repository = write_repository(folder / "models")
    tls = [
        "--grpc-use-ssl=true",
        f"--grpc-server-cert={ours.certificate}",
        f"--grpc-server-key={ours.key}",
    ]
    both = [*tls, "--grpc-use-ssl-mutual=true", f"--grpc-root-cert={ours.authority}"]
    with ExitStack() as running:
        secret, mutual, plain = (
            running.enter_context(TritonServer(folder / name, repository, arguments=arguments))
            for name, arguments in (("secret", tls), ("mutual", both), ("plain", []))
        )
        yield Servers(ours=ours, others=others, secret=secret, mutual=mutual, plain=plain)


def made_at(url: str, **keys: str) -> list[int]:
    engine = engine_at_url(url, **keys)
    try:
        engine.admit([row(number) for number in range(6)])
        return numbers(drain(engine))
    finally:
        engine.close()


def test_images_come_through_tls_from_a_server_with_the_right_authority(servers: Servers) -> None:
    found = made_at(f"grpcs://{servers.secret.grpc}", root_certificates=str(servers.ours.authority))
    assert found == list(range(6))


def test_a_server_that_asks_for_a_certificate_gets_it(servers: Servers) -> None:
    found = made_at(
        f"grpcs://{servers.mutual.grpc}",
        root_certificates=str(servers.ours.authority),
        private_key=str(servers.ours.key),
        certificate_chain=str(servers.ours.certificate),
    )
    assert found == list(range(6))


def refusal(capsys: pytest.CaptureFixture[str], tmp_path: Path, url: str, *keys: str) -> str:
    """What a run says that starts nothing."""
    capsys.readouterr()
    words = [
        "engine=triton",
        f"triton.url={url}",
        f"triton.model={MODEL}",
        f"sampling.width={SIZE}",
        f"sampling.height={SIZE}",
        f"input.path={write_prompts(tmp_path / 'prompts.parquet', [{'prompt': 'a fox'}])}",
        f"output.path={tmp_path / 'out'}",
        *keys,
    ]
    assert main(["run", *words]) == 2
    assert not (tmp_path / "out").exists()
    printed = capsys.readouterr()
    return " ".join((printed.out + printed.err).split())


@pytest.mark.parametrize("strangers", [True, False], ids=["of a stranger", "of nobody"])
def test_an_authority_that_did_not_sign_is_told_before_anything_starts(
    servers: Servers, tmp_path: Path, capsys: pytest.CaptureFixture[str], strangers: bool
) -> None:
    url = f"grpcs://{servers.secret.grpc}"
    keys = [f"triton.root_certificates={servers.others.authority}"] if strangers else []
    said = refusal(capsys, tmp_path, url, *keys)
    assert (
        f"no Triton server answers: {url}: its certificate is signed by none of the authorities "
        "that are trusted here; give the file of the one that signed it as "
        "triton.root_certificates (" in said
    )
    assert "is this its gRPC port?" not in said


def test_a_certificate_for_another_name_is_told(
    servers: Servers, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"grpcs://localhost:{servers.secret.ports.grpc}"
    keys = f"triton.root_certificates={servers.ours.authority}"
    said = refusal(capsys, tmp_path, url, keys)
    assert f"{url}: its certificate is for another name than localhost; give the name" in said


def test_a_port_with_tls_that_is_asked_without_is_told(
    servers: Servers, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = servers.secret.grpc
    said = refusal(capsys, tmp_path, f"grpc://{target}")
    assert f"grpc://{target}: it closed the connection at once, as a port with TLS does" in said
    assert f"if it has TLS, give grpcs://{target} (" in said


def test_a_port_without_tls_that_is_asked_for_it_is_told(
    servers: Servers, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = servers.plain.grpc
    keys = f"triton.root_certificates={servers.ours.authority}"
    said = refusal(capsys, tmp_path, f"grpcs://{target}", keys)
    assert (
        f"grpcs://{target}: its port answers without TLS; expected TLS; give grpc://{target} ("
        in said
    )


@pytest.mark.parametrize("strangers", [True, False], ids=["of a stranger", "of nobody"])
def test_a_server_that_wants_another_certificate_of_us_is_told(
    servers: Servers, tmp_path: Path, capsys: pytest.CaptureFixture[str], strangers: bool
) -> None:
    keys = [f"triton.root_certificates={servers.ours.authority}"]
    if strangers:
        keys += [
            f"triton.private_key={servers.others.key}",
            f"triton.certificate_chain={servers.others.certificate}",
        ]
    said = refusal(capsys, tmp_path, f"grpcs://{servers.mutual.grpc}", *keys)
    assert "it closed the connection when TLS had begun, as a server does that wants " in said
    assert re.search("give triton.private_key and triton.certificate_chain, signed by ", said)
