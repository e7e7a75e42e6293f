"""Battles of several formats, two of their files spoilt."""

import pytest

from tests.battle_files import write_battles


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("battles")
    write_battles(root, 50, seed=300)
    bad = root / "gen1ou" / "x_1500_a_vs_b_01-01-2024_WIN.json.lz4"
    bad.write_bytes(b"no")
    (root / "gen1ou" / "oops.json.lz4").write_bytes(b"")
    return root
