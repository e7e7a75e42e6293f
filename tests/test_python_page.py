"""docs/python.md is one script, and it runs."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_page_runs_as_it_stands(tmp_path, monkeypatch, capsys):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) > 3
    for room in ("battle", "data"):  # what the page reads; what it writes lies in the folder that it is run in
        (tmp_path / room).symlink_to(ROOT / room)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TURNWISE_CACHE", str(tmp_path / "index"))
    exec(compile("\n".join(blocks), "docs/python.md", "exec"), {"__name__": "__main__"})
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"0 \D+ \d+% -?[\d.]+", lines[0])
    assert sum("torch.Size" in line for line in lines) == 1
    assert sum(re.fullmatch(r"[\d.]+ [\d.]+", line) is not None for line in lines) == 3
    assert (tmp_path / "runs" / "mine" / "model" / "agents.py").exists()
