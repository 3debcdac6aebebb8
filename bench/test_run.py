"""bench/run.py and bench/stopped.py from beginning to end, with few accounts and short runs: what was measured is in the tables."""

import json
import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import direct  # noqa: E402
import goals  # noqa: E402
import report  # noqa: E402
import run  # noqa: E402
import servers  # noqa: E402
import stopped  # noqa: E402


@pytest.fixture(name="output")
def small(tmp_path, monkeypatch):
    monkeypatch.setattr(servers, "USERS", 25)
    monkeypatch.setattr(run, "ROOT", str(tmp_path))
    return tmp_path / "build" / "bench"


def rows(page, title=""):
    """{first cell: the others} of every table in it, or of the one with that title."""
    tables = [part for part in page.read_text().split("\n\n") if part.startswith(f"| {title}")]
    lines = "\n".join(tables).splitlines()
    cells = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines if line[:1] == "|"]
    return {line[0]: line[1:] for line in cells}


def figure(cell):
    """Without the mark of a disturbed run, and without the ratio."""
    return cell.split(" ")[0]


@pytest.mark.skipif(servers.XylemOpenSSL.missing() != "", reason="this build is without OpenSSL")
def test_what_is_stored_and_drained_and_what_tls_costs(output, monkeypatch):
    arguments = ["--quick", "--servers", "xylem,xylem-openssl", "--scenarios", "aoffline,pub1,tls-pub100", "--seconds", "0.3"]
    monkeypatch.setattr(sys, "argv", ["run.py", *arguments])
    assert run.main() == 0
    done = [json.loads(line) for line in (output / "results.jsonl").read_text().splitlines()]
    # The other library has nothing to show where no TLS is spoken.
    assert [(result["server"], result["scenario"]) for result in done] == [
        ("Xylem", "aoffline"), ("Xylem", "pub1"), ("Xylem", "tls-pub100"), ("Xylem-OpenSSL", "tls-pub100")
    ]  # fmt: skip
    about = (output / "tables.md").read_text().split("\n\n")[0]
    assert f"Linux {os.uname().release.split('-')[0]}" in about and servers.versions() in about
    found = rows(output / "tables.md", "Work: per second")
    shown = [figure(found[report.MEANING[scenario]][0]) for scenario in ("aoffline", report.DRAIN)]
    assert shown == [report.number(done[0][member]) for member in (report.RATE, "drained_per_s")]
    through_tls = rows(output / "tables.md", "Through STARTTLS: per second")[report.MEANING["tls-pub100"]]
    assert list(map(figure, through_tls)) == [report.number(result[report.RATE]) for result in done[2:]]


PAGE = "Before.\n\n<!-- bench -->\nold\n<!-- /bench -->\n\nAfter.\n"


def run_it(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["run.py", "--quick", "--seconds", "0.3", *arguments])
    return run.main()


def test_what_is_published_replaces_its_own_row_and_keeps_the_others(output, monkeypatch, tmp_path, capsys):
    page = tmp_path / "docs" / "performance.md"
    (tmp_path / "docs" / "charts").mkdir(parents=True)
    page.write_text(PAGE)
    monkeypatch.setattr(report, "DISTURBED", 1000)
    assert run_it(monkeypatch, "--publish", "--servers", "xylem,xylem-segments", "--scenarios", "pub1,rate1000") == 0
    first = rows(page, "Work: per second")[report.MEANING["pub1"]]
    delay = rows(page, "Delay from publisher to subscriber: p99, us")
    assert len(first) == 2 and page.read_text().startswith("Before.") and page.read_text().endswith("After.\n")
    assert run_it(monkeypatch, "--publish", "--servers", "xylem", "--scenarios", "pub1") == 0
    second = rows(page, "Work: per second")[report.MEANING["pub1"]]
    result = json.loads((output / "results.jsonl").read_text())
    assert (second[0], figure(second[1])) == (report.number(result[report.RATE]), figure(first[1]))
    assert rows(page, "Delay from publisher to subscriber: p99, us") == delay
    # What was disturbed stays as it was, and is named.
    monkeypatch.setattr(report, "DISTURBED", -1)
    assert run_it(monkeypatch, "--publish", "--servers", "xylem", "--scenarios", "pub1") == 1
    assert list(map(figure, rows(page, "Work: per second")[report.MEANING["pub1"]])) == list(map(figure, second))
    assert "Xylem pub1" in capsys.readouterr().out.splitlines()[-1]


def test_a_goal_is_met_or_missed_by_what_was_measured():
    def of_pub100(ours, theirs, cost):
        found = {(report.OURS, "pub100"): {report.RATE: ours, report.CPU: cost}, (goals.QUORUM, "pub100"): {report.RATE: theirs}}
        lines = [line.strip("| ").split(" | ") for line in goals.table(found).splitlines()]
        at = next(i for i, line in enumerate(lines) if line[0].startswith("publish, window 100"))
        return lines[at][1], lines[at][-1], lines[at + 1][-1]

    assert of_pub100(200.0, 100.0, 8.0) == ("2", "floor", "goal")
    assert of_pub100(199.0, 100.0, 12.0) == ("1.99", "**neither**", "floor")
    assert of_pub100(199.0, 100.0, 12.1)[2] == "**neither**"


def test_how_long_a_start_takes(output, monkeypatch):
    monkeypatch.setattr(direct, "ITEMS", 2000)
    monkeypatch.setattr(direct, "SECONDS", 0.1)
    monkeypatch.setattr(direct, "CRASH_AFTER_S", 1)
    assert run_it(monkeypatch, "--servers", "xylem", "--scenarios", "commits,handshakes,start") == 0
    done = {result["scenario"]: result for result in map(json.loads, (output / "results.jsonl").read_text().splitlines())}
    assert done["commits"]["operations_per_s"] > 0 and done["handshakes"]["resumed_per_s"] > done["handshakes"]["full_per_s"] > 0
    assert 0 < done["start"]["cpu_s"] <= 2 * done["start"]["start_s"] and done["start"]["killed_start_s"] > 0


def test_rounds_with_and_without_a_stopped_reader_make_a_ratio(output, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["stopped.py", "--pairs", "2", "--seconds", "0.5", "--publish"])
    page = output.parent.parent / "docs" / "performance.md"
    page.parent.mkdir()
    page.write_text(PAGE.replace("bench", "stopped"))
    assert stopped.main() == 0
    done = [json.loads(line) for line in (output / "stopped.jsonl").read_text().splitlines()]
    assert [(result["scenario"], result["stopped"]) for result in done] == [
        (scenario, is_stopped) for scenario in stopped.SCENARIOS for _ in range(2) for is_stopped in (0, 1)
    ]
    assert (output / "stopped.md").read_text() in page.read_text() and "old" not in page.read_text()
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
