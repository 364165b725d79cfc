import os
from pathlib import Path

import pytest

from neuroloop.errors import Conflict
from neuroloop.session import adoption
from neuroloop.session.adoption import Record, RunFolder, outlive, started


def record(pid: int, began: int) -> Record:
    return Record(pid=pid, started=began, directory=Path("/nowhere"), run="r", settings={"name": "a"})


def test_a_record_is_found_while_its_process_lives_and_removed_after(tmp_path: Path) -> None:
    began = started(os.getpid())
    assert began is not None
    folder = RunFolder(tmp_path)
    mine, anothers = record(os.getpid(), began), record(os.getpid(), began + 1)  # that had the number before
    folder.write("mine", mine)
    folder.write("anothers", anothers)
    (tmp_path / "broken.json").write_text("{")
    assert list(folder.records()) == [mine]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lock", "mine.json"]
    folder.close()


def test_a_server_is_there_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adoption, "LOCK_PATIENCE_S", 0.05)
    first = RunFolder(tmp_path)
    with pytest.raises(Conflict, match="another server holds"):
        RunFolder(tmp_path)
    first.close()
    RunFolder(tmp_path).close()


def test_a_session_whose_folder_has_gone_waits_for_nobody(tmp_path: Path) -> None:
    outlive(tmp_path / "gone" / "lock", 60.0)
    assert not (tmp_path / "gone").exists()
