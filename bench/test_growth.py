"""bench/growth.py from beginning to end, with few accounts and short runs: what it measured is in its table."""

import json
import os
import shutil
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import growth  # noqa: E402
import run  # noqa: E402
import servers  # noqa: E402


def test_growth_measures_every_size_and_both_numbers_of_shards(tmp_path, monkeypatch):
    monkeypatch.setattr(servers, "USERS", 12)
    monkeypatch.setattr(run, "ROOT", str(tmp_path))
    monkeypatch.setattr(growth, "CORES", ["pub100"])
    monkeypatch.setattr(growth, "ROUNDS", 1)
    monkeypatch.setattr(sys, "argv", ["growth.py", "--sizes", "10,1000", "--curves", "turn,shards", "--seconds", "0.3", "--publish"])
    page = tmp_path / "docs" / "performance.md"
    (tmp_path / "docs" / "charts").mkdir(parents=True)
    page.write_text("Before.\n<!-- growth -->\nold\n<!-- /growth -->\n<!-- shards -->\nold\n<!-- /shards -->\nAfter.\n")
    assert growth.main() == 0
    output = tmp_path / "build" / "bench"
    results = [json.loads(line) for line in (output / "growth.jsonl").read_text().splitlines()]
    assert [(r.get("size"), r.get("shards")) for r in results] == [(10, None), (1000, None), (None, 1), (None, 2)]
    assert all(result[growth.CPU] > 0 for result in results)
    table = (output / "growth.md").read_text()
    assert "| CPU-s per million, beside so many | 10 | 1,000 | last / first | KiB each |" in table
    assert "| CPU-s per million | 1 shard | 2 shards | ratio |\n| --- | --- | --- | --- |\n| pub100 |" in table
    assert "Nothing was lost" in table
    published = page.read_text()
    assert "old" not in published and all(line in published for line in table.splitlines() if line.startswith("|"))
    if shutil.which("gnuplot") is not None:
        assert (tmp_path / "docs" / "charts" / "growth.svg").exists()
