"""What lies in k8s/ renders, breaks no rule, and is explained."""

from __future__ import annotations

from pathlib import Path

import pytest

from conf.errors import ConfigError
from k8s.__main__ import main
from k8s.lint import render as rendering
from k8s.lint.bundle import external
from k8s.lint.checks import check
from k8s.lint.reference_rules import named_objects
from k8s.lint.render import ROOT, overlays, render
from tests.k8s.rendered import rendered

EXPECTED = ("dev", "job", "kueue", "service", "spot", "triton")


def test_the_overlays_are_those_that_the_readme_explains() -> None:
    readme = (ROOT / "README.md").read_text()
    names = [name.partition("/")[2] for name in overlays() if name.startswith("overlays/")]
    assert names == sorted(EXPECTED)
    assert [name for name in overlays() if f"]({name})" not in readme] == []


@pytest.mark.parametrize("name", overlays())
def test_an_overlay_breaks_no_rule(name: str) -> None:
    assert [str(finding) for finding in check(rendered(name))] == []


def test_what_others_bring_is_used_somewhere() -> None:
    named = {
        one for name in overlays() for m in rendered(name).manifests for one in named_objects(m)
    }
    named.add(("Pod", "submitter"))  # by a NetworkPolicy, not by its name
    assert external() - named == set(), "k8s/external.yaml lists what nothing names"


def test_every_cluster_asks_for_the_same_pods_in_job_and_service() -> None:
    (of_job,) = rendered("overlays/job").clusters()
    (of_service,) = rendered("overlays/service").clusters()
    for key in ("headGroupSpec", "workerGroupSpecs", "authOptions", "rayVersion"):
        assert of_service.spec[key] == of_job.spec[key]


def test_the_command_says_what_was_checked(capsys: pytest.CaptureFixture[str]) -> None:
    assert main() == 0
    text = capsys.readouterr().out
    assert [name for name in (*overlays(), "monitoring") if name not in text] == []
    assert "ray-restart-policy" in text
    assert "CEL rules" in text
    assert "Kubernetes 1." in text


def test_one_overlay_is_checked_by_its_name_and_no_other_word_is_taken(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["overlays/dev"]) == 0
    text = capsys.readouterr().out
    assert "overlays/dev" in text
    assert "overlays/job" not in text
    with pytest.raises(SystemExit) as caught:
        main(["overlays/devel"])
    assert caught.value.code == 2
    assert "there is no overlay overlays/devel; expected some of" in capsys.readouterr().err


def test_a_broken_overlay_is_named_with_its_rule(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = tmp_path / "overlays" / "bad"
    bad.mkdir(parents=True)
    (tmp_path / "examples").mkdir()
    (bad / "kustomization.yaml").write_text("resources:\n  - policy.yaml\n")
    (bad / "policy.yaml").write_text(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: none\n"
        "spec:\n  podSelector: {}\n"
    )
    monkeypatch.setattr("k8s.__main__.ROOT", tmp_path)
    monkeypatch.setattr("k8s.lint.render.ROOT", tmp_path)
    assert main(["overlays/bad"]) == 1
    assert (
        "overlays/bad: overlays/bad: no NetworkPolicy denies ingress and egress to all pods "
        "[network-closed]"
    ) in capsys.readouterr().out


def test_an_overlay_that_kustomize_refuses_is_told_in_its_words(tmp_path: Path) -> None:
    (tmp_path / "kustomization.yaml").write_text("resources:\n  - missing.yaml\n")
    with pytest.raises(ConfigError, match=r"failed: .*missing\.yaml"):
        render(tmp_path)


def test_without_kustomize_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering.shutil, "which", lambda *_, **__: None)
    with pytest.raises(ConfigError, match="neither kubectl nor kustomize is on the PATH"):
        render(ROOT / "overlays" / "job")
