"""The commit by which something was made."""

import subprocess

from trainer import versions


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
    assert versions.git_commit(short=True) == head[: len(versions.git_commit(short=True)) - 1] + "+"
    monkeypatch.setenv("PATH", "")
    assert versions.git_commit() is None
