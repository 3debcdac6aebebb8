"""bench/run.py and bench/stopped.py from beginning to end, with few accounts and short runs: what was measured is in the tables."""

import json
import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import report  # noqa: E402
import run  # noqa: E402
import servers  # noqa: E402
import stopped  # noqa: E402


@pytest.fixture(name="output")
def small(tmp_path, monkeypatch):
    monkeypatch.setattr(servers, "USERS", 25)
    monkeypatch.setattr(servers, "OPENSSL", servers.harness.BIN)  # whichever library this build has
    monkeypatch.setattr(servers.XylemOpenSSL, "bin", servers.harness.BIN)
    monkeypatch.setattr(run, "ROOT", str(tmp_path))
    return tmp_path / "build" / "bench"


def rows(page):
    """{first cell: the others} of every table in it."""
    cells = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in page.read_text().splitlines() if line[:1] == "|"]
    return {line[0]: line[1:] for line in cells}


def test_what_is_stored_and_drained_and_what_tls_costs(output, monkeypatch):
    arguments = ["--quick", "--servers", "xylem,xylem-openssl", "--scenarios", "aoffline,pub1,tls-pub100", "--seconds", "0.3"]
    monkeypatch.setattr(sys, "argv", ["run.py", *arguments])
    assert run.main() == 0
    done = [json.loads(line) for line in (output / "results.jsonl").read_text().splitlines()]
    # The build on the other library has nothing to show where no TLS is spoken.
    assert [(result["server"], result["scenario"]) for result in done] == [
        ("Xylem", "aoffline"), ("Xylem", "pub1"), ("Xylem", "tls-pub100"), ("Xylem-OpenSSL", "tls-pub100")
    ]  # fmt: skip
    found = rows(output / "tables.md")
    name = report.MEANING["aoffline"]
    stored = found[name] if name in found else found[name + " *"]
    drained = next(cells for title, cells in found.items() if title.startswith(report.MEANING[report.DRAIN]))
    assert [stored[1], drained[1]] == [report.number(done[0][figure]) for figure in (report.RATE, "drained_per_s")]
    through_tls = next(cells for title, cells in found.items() if title.startswith(report.MEANING["tls-pub100"]))
    assert [through_tls[1], through_tls[4]] == [report.number(result[report.RATE]) for result in done[2:]]


def test_rounds_with_and_without_a_stopped_reader_make_a_ratio(output, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["stopped.py", "--pairs", "2", "--seconds", "0.5"])
    assert stopped.main() == 0
    done = [json.loads(line) for line in (output / "stopped.jsonl").read_text().splitlines()]
    assert [(result["scenario"], result["stopped"]) for result in done] == [
        (scenario, is_stopped) for scenario in stopped.SCENARIOS for _ in range(2) for is_stopped in (0, 1)
    ]
    found = rows(output / "stopped.md")
    assert len(found) == 2 + 2 * len(stopped.SCENARIOS)
    for scenario in stopped.SCENARIOS:
        without, with_it, ratio, spread = found[f"{report.MEANING[scenario]}: p99, us"]
        assert float(without.replace(",", "")) > 0 and float(with_it.replace(",", "")) > 0
        low, high = spread.split(" to ")
        assert float(ratio) > 0 and 0 < float(low) <= float(high)


def test_a_reader_that_does_not_stop_is_noticed(output, monkeypatch, capsys):
    del output
    monkeypatch.setattr(stopped, "BURST", 10)
    monkeypatch.setattr(stopped, "SCENARIOS", ["rate1000"])
    monkeypatch.setattr(sys, "argv", ["stopped.py", "--pairs", "2", "--seconds", "0.1"])
    assert stopped.main() == 1
    assert "nothing was held back" in capsys.readouterr().out
