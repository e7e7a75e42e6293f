"""The commit by which something was made."""

import subprocess

from trainer import telling, versions


def test_a_commit_tells_whether_the_rooms_are_its_own(tmp_path, monkeypatch):
    """Two runs of two objectives, one an edit of the other, both said the same commit."""
    monkeypatch.setattr(versions, "ROOT", tmp_path)
    assert versions.git_commit() is None
    (tmp_path / "trainer").mkdir()
    (tmp_path / "notes.md").write_text("")
    edited = tmp_path / "trainer" / "objective.py"
    edited.write_text("1")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *command], check=True)
    (tmp_path / "notes.md").write_text("of no number")
    head = versions.git_commit()
    assert len(head) == 40
    edited.write_text("2")
    assert versions.git_commit() == head + "+"
    (tmp_path / "trainer" / "new.py").write_text("3\n")
    (tmp_path / "trainer" / "weights.bin").write_bytes(b"\0" * 99)
    changes = versions.code_changes()
    assert "weights" not in changes
    subprocess.run([*git, "checkout", "-q", "trainer"], check=True)
    (tmp_path / "trainer" / "new.py").unlink()
    assert versions.code_changes() == ""
    subprocess.run([*git, "apply", "-"], input=changes.encode(), cwd=tmp_path, check=True)
    assert (edited.read_text(), (tmp_path / "trainer" / "new.py").read_text()) == ("2", "3\n")
    assert versions.git_commit(short=True) == head[: len(versions.git_commit(short=True)) - 1] + "+"
    monkeypatch.setenv("PATH", "")
    assert versions.git_commit() is None
    assert versions.code_changes() == ""


def test_a_run_keeps_the_edits_that_its_commit_lacks_and_no_earlier_starts(tmp_path, monkeypatch):
    kept = tmp_path / "code.diff"
    for changes in ("+ one γ\n", "+ two\n"):
        monkeypatch.setattr(telling, "code_changes", lambda changes=changes: changes)
        telling.keep_code(kept)
        assert kept.read_text(encoding="utf-8") == changes
    monkeypatch.setattr(telling, "code_changes", lambda: "")
    telling.keep_code(kept)
    assert not kept.exists()
