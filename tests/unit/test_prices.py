"""Price books on the command line: shown, and made of a SkyPilot catalogue."""

from __future__ import annotations

from pathlib import Path

import pytest

from conf.price_book import read_book
from jobs.cli import main

HEAD = (
    "InstanceType,AcceleratorName,AcceleratorCount,vCPUs,MemoryGiB,Region,SpotPrice,Price,"
    "AvailabilityZone,GpuInfo\n"
)
CATALOGUE = HEAD + (
    "p5.48xlarge,H100,8.0,192.0,2048.0,us-east-1,31.2,98.32,us-east-1a,\"{'Gpus': []}\"\n"
    'p5.48xlarge,H100,8.0,192.0,2048.0,us-east-1,30.1234567891,98.32,us-east-1b,"{}"\n'
    "g6.xlarge,L4,1.0,4.0,16.0,eu-west-1,,0.9,eu-west-1a,\n"
    "c7.large,,,2.0,4.0,us-east-1,0.03,0.085,us-east-1a,\n"
    ",TPU,1.0,,,us-east-1,1,2,us-east-1a,\n"
)
ASKED = ["--provider", "aws", "--version", "2026-11"]


def imported(folder: Path, *options: str, text: str = CATALOGUE) -> tuple[int, Path]:
    catalogue, book = folder / "vms.csv", folder / "aws.yaml"
    catalogue.write_text(text)
    return main(["prices", "import", str(catalogue), str(book), *ASKED, *options]), book


def test_a_catalogue_becomes_a_book(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, path = imported(tmp_path)
    assert status == 0
    said = capsys.readouterr().out
    assert said.startswith(f"wrote {path}: 6 prices; use them with pricing={path}, look at them")
    book = read_book(str(path))
    assert (book.version, book.currency) == ("2026-11", "USD")
    found = {
        (e.instance_type, e.region, e.zone, e.purchase_option): (e.nano_per_hour, e.gpus, e.vcpus)
        for e in book.instances
    }
    assert found == {
        ("c7.large", "us-east-1", None, "on-demand"): (85_000_000, None, 2.0),
        ("c7.large", "us-east-1", None, "spot"): (30_000_000, None, 2.0),
        ("g6.xlarge", "eu-west-1", None, "on-demand"): (900_000_000, 1.0, 4.0),
        ("p5.48xlarge", "us-east-1", None, "on-demand"): (98_320_000_000, 8.0, 192.0),
        ("p5.48xlarge", "us-east-1", "us-east-1a", "spot"): (31_200_000_000, 8.0, 192.0),
        ("p5.48xlarge", "us-east-1", "us-east-1b", "spot"): (30_123_456_789, 8.0, 192.0),
    }
    assert {entry.provider for entry in book.instances} == {"aws"}


def test_only_what_was_asked_for_is_imported(tmp_path: Path) -> None:
    status, path = imported(tmp_path, "--region", "us-east-1", "--accelerator", "H100")
    assert status == 0
    assert {entry.instance_type for entry in read_book(str(path)).instances} == {"p5.48xlarge"}


@pytest.mark.parametrize(
    ("text", "options", "says"),
    [
        ("a,b\n1,2\n", [], "has no column InstanceType, Region, Price, SpotPrice; expected a SkyP"),
        (CATALOGUE, ["--region", "mars"], "--region mars matches no price in "),
        (
            CATALOGUE,
            ["--region", "us-east-1", "--region", "us-aest-1"],
            "--region us-aest-1 matches no price in {} of what else was asked for; its Region "
            "column has eu-west-1, us-east-1; nothing was written; correct it, or leave it out",
        ),
        (
            CATALOGUE,
            ["--accelerator", "H100", "--accelerator", "h200"],
            "--accelerator h200 matches no price in {} of what else was asked for; its "
            "AcceleratorName column has H100, L4, TPU; nothing",
        ),
        (
            CATALOGUE,
            ["--accelerator", "H100", "--region", "us-east-1", "--region", "eu-west-1"],
            "--region eu-west-1 matches no price in ",
        ),
        (HEAD, [], "vms.csv has no line with an instance type and a price"),
        (
            HEAD + "x,H100,8,,,r,,2,,\nx,H100,8,,,r,1,98,320,z,\n",
            [],
            "{}, line 3 has 11 fields; expected 10, as its first line has; a comma within a field "
            "needs quotes around the field, and numbers need none",
        ),
        (HEAD + "x,H100,8,,,r,,2,\n", [], "{}, line 2 has 9 fields; expected 10, as its first"),
        (HEAD + "x,H100,8,,, ,,2,,\n", [], "{}, line 2: x has no Region; expected one: an entry"),
        (
            HEAD + "x,H100,eight,,,r,,2,,\n",
            [],
            "{}, line 2: AcceleratorCount of x is 'eight'; expected a number, or nothing",
        ),
        (HEAD + "x,,,-2,,r,,2,,\n", [], "{}, line 2: vCPUs of x is '-2'; expected a number, or"),
        (HEAD + "x,,,nan,,r,,2,,\n", [], "{}, line 2: vCPUs of x is 'nan'; expected a number, or"),
        (
            HEAD + "x,H100,,,,r,,2,,\n",
            [],
            "{}, line 2: x has H100 and no AcceleratorCount; expected how many",
        ),
        (
            HEAD + 'x,,,,,r,,"98,320",,\n',
            [],
            "{}, line 2: Price of x in r is '98,320'; expected a number that is 0 or at least",
        ),
        (HEAD + "x,,,,,r,,10000001,,\n", [], "0.000000001, and at most 10,000,000"),
        (CATALOGUE, ["--version", " "], "--version is ' '; expected text, such as 2026-11"),
        (CATALOGUE, ["--provider", ""], "--provider is ''; expected text, such as aws"),
        (HEAD + "x,,,,,r,,-1,,\n", [], "Price of x in r is '-1'; expected a number that is 0 or"),
        (HEAD + "x,,,,,r,,nan,,\n", [], "Price of x in r is 'nan'; expected a number"),
        (HEAD + "x,,,,,r,,4e-11,,\n", [], "or at least 0.000000001"),
        (HEAD + "x,,,,,r,,cheap,,\n", [], "Price of x in r is 'cheap'; expected a number"),
        (
            HEAD + "x,,,,,r,1,2,z,\nx,,,,,r,,3,z,\n",
            [],
            "has two prices of x on-demand in z: 2 (line 2) and 3 (line 3); expected one; nothing "
            "was written; remove the line that is wrong, or leave it out with --region",
        ),
        (
            HEAD + "x,H100,8,,,r,,2,,\nx,H100,4,,,r,,2,,\n",
            [],
            "has two prices of x on-demand in r: 2, gpus 8 (line 2) and 2, gpus 4 (line 3)",
        ),
        (CATALOGUE, ["--currency", "eur"], "--currency is 'eur'; expected a code of ISO 4217"),
        (CATALOGUE, ["--currency", "eur"], "did you mean EUR? SkyPilot's own catalogues are in"),
        (CATALOGUE, ["--currency", "Dollars"], "or CNY; SkyPilot's own catalogues are in USD"),
    ],
)
def test_a_catalogue_that_is_of_no_use_is_refused(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    text: str,
    options: list[str],
    says: str,
) -> None:
    status, path = imported(tmp_path, *options, text=text)
    assert status == 2
    assert says.format(tmp_path / "vms.csv") in capsys.readouterr().err
    assert not path.exists()


def test_a_catalogue_that_excel_saved_is_read(tmp_path: Path) -> None:
    status, path = imported(tmp_path, text="\ufeff" + CATALOGUE.replace("\n", "\r\n"))
    assert status == 0
    assert len(read_book(str(path)).instances) == 6


def test_a_price_that_is_there_twice_is_taken_once_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = CATALOGUE.splitlines(keepends=True)[3]
    status, path = imported(tmp_path, text=CATALOGUE + again + again)
    assert status == 0
    said = capsys.readouterr().out
    assert said.splitlines()[-1] == "the catalogue has 2 prices twice; each was taken once"
    assert len(read_book(str(path)).instances) == 6


def test_zones_of_one_price_and_other_shares_stay_apart(tmp_path: Path) -> None:
    status, path = imported(tmp_path, text=HEAD + "x,L4,1,,,r,,2,a,\nx,L4,2,,,r,,2,b,\n")
    assert status == 0
    found = [(entry.zone, entry.gpus) for entry in read_book(str(path)).instances]
    assert found == [("a", 1.0), ("b", 2.0)]


def test_a_book_that_no_run_could_take_is_not_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "vms.csv").write_text(CATALOGUE)
    for name in ("aws.json", "aws"):
        path = tmp_path / name
        assert main(["prices", "import", str(tmp_path / "vms.csv"), str(path), *ASKED]) == 2
        said = capsys.readouterr().err
        assert f"{path} would be no price book: pricing.book=… takes files that end in" in said
        assert f".yaml or .yml; nothing was written; name it {name}.yaml, say" in said
        assert not path.exists()


def test_a_book_that_is_named_without_its_key_is_told_how(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as left:
        main(["prices", "my book.yaml"])
    assert left.value.code == 2
    said = capsys.readouterr().err
    assert "imagemill prices shows the book that --book names: imagemill prices --book" in said
    assert "--book 'my book.yaml'; to make one of a catalogue: imagemill prices import CAT" in said


def test_a_book_is_never_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert imported(tmp_path)[0] == 0
    status, path = imported(tmp_path)
    assert status == 2
    assert f"{path} exists; nothing was changed" in capsys.readouterr().err
    missing = ["prices", "import", str(tmp_path / "no.csv"), str(tmp_path / "b.yaml"), *ASKED]
    assert main(missing) == 2
    assert "cannot read" in capsys.readouterr().err
    (tmp_path / "vms.csv").write_text(CATALOGUE)
    nowhere = str(tmp_path / "no" / "b.yaml")
    assert main(["prices", "import", str(tmp_path / "vms.csv"), nowhere, *ASKED]) == 2
    assert f"cannot write {nowhere}: No such file" in capsys.readouterr().err
    (tmp_path / "vms.csv").write_bytes(b"InstanceType,Region,Price,SpotPrice\n\xff,r,1,2\n")
    assert main(["prices", "import", str(tmp_path / "vms.csv"), nowhere, *ASKED]) == 2
    assert f"cannot read {tmp_path / 'vms.csv'}: 'utf-8' codec" in capsys.readouterr().err


def test_a_book_that_cannot_be_shown_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["prices", "--book", "none"]) == 2
    assert "pricing.book=none does not exist; expected one of local" in capsys.readouterr().err
    assert main(["prices", "--book", str(tmp_path / "no.yaml")]) == 2
    assert f"cannot read price book {tmp_path / 'no.yaml'}" in capsys.readouterr().err


def test_a_book_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prices"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith("local: prices local-2 in USD, since ever; digest ")
    assert shown[1] == "local local owned: 0.1 an hour (shared by its workers)"
    _, path = imported(tmp_path)
    with path.open("a") as book:
        book.write("effective_from: 2026-11-01\neffective_until: 2026-12-01\nstorage:\n")
        book.write(
            "- {url: 's3://', per_gb_month: '0.023', per_1000_writes: 1, per_1000_reads: 2}\n"
        )
    capsys.readouterr()
    assert main(["prices", "--book", str(path)]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert "in USD, since 2026-11-01 up to 2026-12-01; digest" in shown[0]
    assert "aws us-east-1b p5.48xlarge spot: 30.123456789 an hour (8 GPU, 192 vCPU)" in shown
    assert shown[-1] == (
        "s3://: 0.023 a GB-month, 1 for 1,000 writes, 2 for 1,000 reads, 0 a GB read"
    )
