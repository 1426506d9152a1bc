"""RayJobs that are written for GitOps, held against the rules of the manifests."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from conf.errors import ConfigError
from jobs.cli import main
from jobs.rayjob import SHELL, render
from jobs.sendable import refuse_secrets
from k8s.lint.bundle import Bundle
from k8s.lint.crd_schemas import CRD_RULES
from k8s.lint.manifest import parse
from k8s.lint.operator_rules import OPERATOR_RULES
from k8s.lint.run_line import RUN_RULES
from tests.k8s.rendered import rendered

PATTERN = Path(__file__).parents[2] / "k8s/overlays/job/rayjob.yaml"
ASKED = ("input.path=s3://b/in", "output.path=s3://b/jobs/Cats_2", "model=a/b")


NAME = "imagemill-cats-2-f7438f"


def submit(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    capsys.readouterr()
    status = main(["submit", *arguments])
    said = capsys.readouterr()
    return status, said.out + said.err


def only_job(text: str) -> dict[str, Any]:
    (job,) = [one for one in yaml.safe_load_all(text) if one["kind"] == "RayJob"]
    return dict(job)


def test_the_rayjob_is_the_pattern_with_another_name_and_command(
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = (*ASKED, "cluster.max_workers=4", "cluster.gpus_per_worker=1", "budget.max_cost=40")
    status, text = submit(capsys, *asked, "--render", str(PATTERN))
    assert status == 0, text
    job, before = only_job(text), only_job(PATTERN.read_text())
    assert job["metadata"].pop("name") == NAME
    assert job["spec"].pop("entrypoint") == (
        "imagemill run --resume input.path=s3://b/in output.path=s3://b/jobs/Cats_2 model=a/b "
        "cluster.max_workers=4 cluster.gpus_per_worker=1 budget.max_cost=40 cluster.address=auto "
        "cluster.autoscaled=true cluster.start_timeout_s=1800 cluster.preemption_notice_s=30 "
        "pricing.book=/etc/imagemill/prices.yaml"
    )
    del before["metadata"]["name"], before["spec"]["entrypoint"]
    assert job == before
    bundle = Bundle(name="rendered", manifests=parse(text))
    rules = {**CRD_RULES, **OPERATOR_RULES, **RUN_RULES}
    assert [found for rule in rules.values() for found in rule(bundle)] == []


def test_a_price_book_that_is_on_the_cluster_only_may_be_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    status, text = submit(capsys, *ASKED, "pricing=/etc/mine.yaml", "--render", str(PATTERN))
    assert status == 0, text
    command = only_job(text)["spec"]["entrypoint"]
    assert "pricing=/etc/mine.yaml" in command
    assert "pricing.book=" not in command, "the given one takes the place of the pattern's"


def test_what_stands_beside_the_rayjob_is_passed_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    beside = {"kind": "ConfigMap", "metadata": {"name": "prices"}}
    text = f"{yaml.safe_dump(beside)}---\n{PATTERN.read_text()}"
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    status, text = submit(capsys, *ASKED, "--render", "-")
    assert status == 0, text
    first, second = yaml.safe_load_all(text)
    assert first == beside
    assert second["metadata"]["name"] == NAME


@pytest.mark.parametrize("mark", [*sorted(SHELL), " "])
def test_what_a_shell_would_change_is_refused(mark: str) -> None:
    pattern = PATTERN.read_text()
    with pytest.raises(ConfigError) as caught:
        render(
            pattern,
            "x",
            job_name="cats",
            output="s3://b/o",
            overrides=[f"input.path=s3://b/{mark}in"],
        )
    assert f"holds {mark!r}: KubeRay hands the command unquoted to a shell" in str(caught.value)


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("kind: Pod", "x holds 0 RayJobs; expected one that the new one is to be like"),
        ("kind: RayJob\n---\nkind: RayJob", "x holds 2 RayJobs"),
        ("kind: RayJob", "the RayJob of x has no metadata or no spec.entrypoint"),
        ("a: b: c", "x is no YAML"),
    ],
)
def test_a_pattern_that_is_none_is_refused(pattern: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        render(pattern, "x", job_name="cats", output="s3://b/o", overrides=ASKED)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((*ASKED, "--render", "no.yaml"), "cannot read --render no.yaml: No such file"),
        ((*ASKED, "--render", str(PATTERN), "--follow"), "--render sends nothing that could be"),
        (("--resume", "s3://b/o", "--render", str(PATTERN)), "without --resume and --follow"),
        (("output.path=out", *ASKED, "--render", str(PATTERN)), "output.path=out is relative"),
        ((*ASKED, "job.nmae=x", "--render", str(PATTERN)), "job.nmae"),
    ],
)
def test_what_cannot_be_rendered_is_told(
    arguments: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, text = submit(capsys, *arguments)
    assert status == 2
    assert says in text


def test_a_long_name_is_cut_to_what_kuberay_takes() -> None:
    text = render(
        PATTERN.read_text(), "x", job_name="Cats & dogs " * 9, output="s3://b/o", overrides=ASKED
    )
    name = only_job(text)["metadata"]["name"]
    assert len(name) <= 47
    assert name.startswith("imagemill-cats-dogs-cats-")
    assert not re.search("--|-$", name)


def test_two_jobs_of_one_name_have_two_rayjobs_and_one_job_has_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """KubeRay does nothing with a RayJob whose command is changed: the second would not begin."""
    names = []
    for output in ("s3://b/cats/2026", "s3://b/dogs/2026", "s3://b/dogs/2026/"):
        given = ("input.path=s3://b/in", f"output.path={output}", "--render", str(PATTERN))
        status, text = submit(capsys, *given)
        assert status == 0, text
        names.append(only_job(text)["metadata"]["name"])
    cats, dogs, again = names
    assert cats.startswith("imagemill-2026-")
    assert cats != dogs == again


def test_a_job_like_one_of_tritons_asks_the_same_servers() -> None:
    (like,) = rendered("overlays/triton").of_kind("RayJob")
    text = render(
        yaml.safe_dump(dict(like.body)), "x", job_name="cats", output="s3://b/o", overrides=ASKED
    )
    command = only_job(text)["spec"]["entrypoint"].split()
    assert [one for one in command if one.startswith(("engine", "triton"))] == [
        "engine=triton",
        "triton.url=grpc://imagemill-triton-0.imagemill-triton:8001,"
        "grpc://imagemill-triton-1.imagemill-triton:8001",
        "triton.model=sdxl",
        "triton.owned=true",
    ]
    other = render(
        yaml.safe_dump(dict(like.body)),
        "x",
        job_name="cats",
        output="s3://b/o",
        overrides=[*ASKED, "engine=stepwise"],
    )
    assert "triton." not in only_job(other)["spec"]["entrypoint"]


def test_a_job_like_one_on_spot_commits_as_often() -> None:
    (like,) = rendered("overlays/spot").of_kind("RayJob")
    text = render(
        yaml.safe_dump(dict(like.body)), "x", job_name="cats", output="s3://b/o", overrides=ASKED
    )
    assert "job.commit_seconds=15" in only_job(text)["spec"]["entrypoint"].split()


@pytest.mark.parametrize(
    "given",
    [
        "storage.options.secret=abcdef",
        "+storage.options.client_kwargs.aws_secret_access_key=abcdef",
        "storage.options.sas_token=abcdef",
        "budget.alert=https://hooks.example.com/abcdef",
        "budget.alert='https://hooks.example.com/abcdef'",
        "triton.headers.authorization=abcdef",
        "triton.headers={x-tenant:TRITON_TENANT,authorization:abcdef}",
    ],
)
@pytest.mark.parametrize("how", [("--to", "http://127.0.0.1:9"), ("--render", str(PATTERN))])
def test_what_may_be_a_secret_is_on_no_command_line_that_others_read(
    given: str, how: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    name = given.lstrip("+").partition("=")[0]
    status, text = submit(capsys, *ASKED[:2], given, *how)
    assert status == 2
    assert f"{name} may be a secret, and whoever looks at the cluster's jobs" in text
    if name.startswith("triton."):
        assert "give triton.headers.NAME=VARIABLE, where VARIABLE is the name, in capital" in text
    assert "abcdef" not in text
    assert text.endswith("; nothing was sent\n") == (how[0] == "--to"), text


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (("input.path=s3://me:abcdef@b/x.parquet", "output.path=s3://b/o"), "input.path s3://…@b/"),
        (("--resume", "s3://me:abcdef@b/o"), "OUTPUT s3://…@b/o"),
        (("--resume", "s3://b/o", "budget.store=s3://me:abcdef@b/p"), "budget.store s3://…@b/p"),
    ],
)
def test_a_url_with_credentials_is_not_sent(
    given: tuple[str, ...], shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, text = submit(capsys, *given, "--to", "http://127.0.0.1:9")
    assert status == 2
    assert shown in text
    assert "carries credentials, and whoever looks at the cluster's jobs" in text
    assert text.endswith("in the environment of the cluster's nodes (AWS_*); nothing was sent\n")
    assert "abcdef" not in text


def test_what_is_no_secret_may_be_sent(capsys: pytest.CaptureFixture[str]) -> None:
    given = (
        "storage.options.requester_pays=true",
        "budget.alert=notify-us",
        "budget.max_cost=9",
        "triton.headers.authorization=TRITON_TOKEN",
    )
    status, text = submit(capsys, *ASKED[:2], *given, "--render", str(PATTERN))
    assert status == 0, text
    assert set(given) <= set(only_job(text)["spec"]["entrypoint"].split())


@pytest.mark.parametrize(
    "given",
    [
        "input.path=s3://bucket/rows@v2/mail@shop.parquet",
        "input.path=abfs://prompts@account.dfs.core.windows.net/rows.parquet",
    ],
)
def test_what_only_looks_like_a_secret_may_be_sent(given: str) -> None:
    refuse_secrets([given])
