"""Budget alerts reach a webhook or a command, once a level, and never end a run."""

from __future__ import annotations

import http.server
import json
import logging
import socketserver
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cluster.budget import Caps, Spent
from cluster.coordinator import Snapshot
from cluster.job_log import JobRecord
from conf.alert_target import check_command
from conf.errors import ConfigError
from conf.price_book import book_of
from jobs.alerts import BudgetAlerts
from jobs.execute import execute
from jobs.spending import caps_of
from tests.small_jobs import prepare_small_job, small_config
from tests.snapshots import snapshot_of

USD = 10**9


def job_of(tmp_path: Path, alert: str | None, **budget: Any) -> JobRecord:
    small = prepare_small_job(tmp_path, [{"prompt": "x"}], **{"budget.max_cost": "10"})
    config = small.job.config
    return replace(
        small.job, config=replace(config, budget=replace(config.budget, alert=alert, **budget))
    )


def seen(usd: float, over_budget: str = "") -> Snapshot:
    spent = Spent(nano=int(usd * USD), ns=3600 * USD)
    return snapshot_of(spent=spent, over_budget=over_budget)


@contextmanager
def webhook(status: int = 200) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A real server; what was posted to it. A GET, as of a followed redirect, is welcome."""
    posted: list[dict[str, Any]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(status)
            self.send_header("Location", "/elsewhere")
            self.end_headers()

        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/secret-token", posted
        finally:
            server.shutdown()
            thread.join()


def tell(job: JobRecord, *snapshots: Snapshot, settled: float = 0) -> None:
    with BudgetAlerts(job, caps_of(job), Spent(nano=int(settled * USD))) as alerts:
        for snapshot in snapshots:
            alerts.see(snapshot)
            for thread in alerts._threads:
                thread.join()


def test_each_level_is_told_once(tmp_path: Path) -> None:
    with webhook() as (url, posted):
        tell(
            job_of(tmp_path, url),
            *[seen(usd) for usd in (1, 4.9, 5, 5.1, 7.9, 9.9, 10.2)],
            *[seen(9.99, "budget.max_cost=10 USD is all but used")] * 2,
        )
    assert [message["level"] for message in posted] == [50, 80, 100]
    first, _, last = posted
    assert first["text"] == "imagemill job 'small' has used 50 % of its budget: 5 of 10 USD used"
    assert (first["spent"], first["max_cost"], first["hours"]) == ("5.000000000", "10", 1.0)
    assert (first["job"], first["project"], first["stopped"]) == ("small", "default", "")
    assert last["stopped"] == "budget.max_cost=10 USD is all but used"


def test_what_was_spent_without_prices_is_not_told_as_nothing(tmp_path: Path) -> None:
    with webhook() as (url, posted):
        tell(job_of(tmp_path, url), replace(seen(9), unpriced=True))
    assert [message["spent"] for message in posted] == [None, None]


def test_a_stop_is_told_as_one_whatever_share_is_used(tmp_path: Path) -> None:
    caps = Caps(nano=25 * USD, ns=None, currency="USD")
    spent, kept = Spent(nano=1506 * USD // 100), Spent(nano=994 * USD // 100)
    with webhook() as (url, posted):
        tell(job_of(tmp_path, url, max_cost="25"), seen(15.06, caps.exceeded(spent, kept)))
    posted.sort(key=lambda message: message["level"])  # both are told at once
    assert [message["level"] for message in posted] == [50, 100], "80 % were not used"
    assert posted[0]["text"].endswith(" has used 50 % of its budget: 15.06 of 25 USD used")
    assert posted[1]["text"] == (
        "imagemill job 'small' was stopped by its budget: budget.max_cost=25 USD is all but used: "
        "15.06 USD are spent, 9.94 USD are kept for workers to leave in order"
    )


def test_what_earlier_runs_had_told_is_not_told_again(tmp_path: Path) -> None:
    with webhook() as (url, posted):
        tell(job_of(tmp_path, url), seen(6), seen(8.5), settled=6)
    assert [message["level"] for message in posted] == [80]


def test_a_command_gets_the_message_on_its_standard_input(tmp_path: Path) -> None:
    script = tmp_path / "told.py"
    script.write_text(f"import sys; open({str(tmp_path / 'told')!r}, 'w').write(sys.stdin.read())")
    tell(job_of(tmp_path, f"{sys.executable} {script}"), seen(5))
    assert json.loads((tmp_path / "told").read_text())["level"] == 50


@pytest.mark.parametrize(
    ("alert", "says"),
    [
        ("http://127.0.0.1:1/secret-token", "Connection refused"),
        ("/nowhere/command", "No such file or directory"),
        (f"{sys.executable} -c 'raise SystemExit(3)'", "the command ended with status 3"),
        ("'unfinished secret-token", "ValueError"),
        ("   ", "IndexError"),
        ("http://127.0.0.1/secret-token RET", "InvalidURL"),
        ("http://user:secret-token@/x", "InvalidURL"),
    ],
)
def test_an_alert_that_cannot_be_told_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, alert: str, says: str
) -> None:
    with caplog.at_level(logging.WARNING):
        tell(job_of(tmp_path, alert), seen(5))
    assert "budget.alert could not be told: " in caplog.text
    assert says in caplog.text
    assert "secret-token" not in caplog.text


def test_a_webhook_that_refuses_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with webhook(status=503) as (url, _), caplog.at_level(logging.WARNING):
        tell(job_of(tmp_path, url), seen(5))
    assert "budget.alert could not be told: status 503" in caplog.text


def test_a_webhook_that_redirects_is_not_followed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with webhook(status=302) as (url, posted), caplog.at_level(logging.WARNING):
        tell(job_of(tmp_path, url), seen(5))
    assert len(posted) == 1
    assert "not be told: status 302; redirects are not followed, give the last URL" in caplog.text


def test_a_server_that_speaks_no_http_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Garbage(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while self.rfile.readline().strip():
                pass
            self.wfile.write(b"secret-token and more\r\n")

    with socketserver.TCPServer(("127.0.0.1", 0), Garbage) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        with caplog.at_level(logging.WARNING):
            tell(job_of(tmp_path, f"http://127.0.0.1:{server.server_address[1]}/"), seen(5))
        thread.join()
    assert "budget.alert could not be told: BadStatusLine" in caplog.text
    assert "secret-token" not in caplog.text


@pytest.mark.parametrize(
    ("alert", "says"),
    [
        ("http://hooks/services/SECRET RET2", "is a URL with spaces or characters that a URL"),
        ("http://hooks/SECRET\u00e9", "is a URL with spaces or characters that a URL"),
        ("http://user:SECRET@/x", "is a URL with a user before its host, which is not sent"),
        ("http://host:SECRET/x", "is a URL whose host or port is none"),
        ("http://[SECRET/x", "is a URL whose host or port is none"),
        ("https:///SECRET", "is a URL without a host"),
        ("ftp://host/SECRET", "is a URL that nothing can be posted to"),
        ("tell 'SECRET", "is a command with a quote that is not closed"),
        ("tell SECRET\0", "is a command with a zero byte"),
        ("   ", "is empty"),
        ("''", "is empty"),
    ],
)
def test_a_target_that_could_never_be_told_is_refused_without_being_shown(
    tmp_path: Path, alert: str, says: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        small_config(tmp_path, {"budget.alert": alert})
    assert str(caught.value).startswith(f"budget.alert {says}")
    assert "; expected http(s)://host/path or a command with its arguments" in str(caught.value)
    assert "SECRET" not in str(caught.value)


def test_a_command_that_is_not_there_is_refused_before_a_run_begins(tmp_path: Path) -> None:
    small = prepare_small_job(tmp_path, [{"prompt": "x"}], **{"budget.alert": "no-such SECRET"})
    book = book_of(small.job.config.pricing)
    with pytest.raises(ConfigError) as caught:
        execute(small.job, small.store, Console(), book, shards=1)
    assert str(caught.value) == (
        "budget.alert is a command that this machine does not have, or may not execute; expected "
        "http(s)://host/path or a command with its arguments (the value is not shown, for it may "
        "be a secret)"
    )
    for there in ("sh -c 'cat > told'", sys.executable, "http://nowhere/at/all"):
        check_command(there)


def test_targets_that_can_be_told_are_taken(tmp_path: Path) -> None:
    for alert in ("HTTPS://hooks.example:8443/a?b=%20", "http://[::1]:80/", "mail 'a b' me@here"):
        assert small_config(tmp_path, {"budget.alert": alert}).budget.alert == alert


def test_nobody_is_told_where_nobody_is_named(tmp_path: Path) -> None:
    with BudgetAlerts(job := job_of(tmp_path, None), caps_of(job), Spent()) as alerts:
        alerts.see(seen(9))
        assert alerts._threads == []


def test_who_is_alerted_is_never_written_to_the_output(tmp_path: Path) -> None:
    alert = "https://hooks.example/secret-token"
    small = prepare_small_job(tmp_path, [{"prompt": "x"}], **{"budget.alert": alert})
    assert small.job.config.budget.alert == alert
    written = [path for path in (tmp_path / "output").rglob("*") if path.is_file()]
    assert written
    assert not [path for path in written if b"secret-token" in path.read_bytes()]
