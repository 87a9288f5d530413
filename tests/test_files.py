import errno

import pytest

from sktda.files import check_outputs, staged


def test_all_outputs_appear_together(tmp_path):
    targets = [tmp_path / "a.csv", tmp_path / "b.csv"]
    with staged(targets, force=False) as places:
        for place in places:
            place.write_text("new")
            assert place.parent == tmp_path  # a rename is only atomic within one file system
        assert not any(target.exists() for target in targets)
    assert [target.read_text() for target in targets] == ["new", "new"]
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    "failure", [ValueError("x"), KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")]
)
def test_a_failure_leaves_the_old_files_and_nothing_else(tmp_path, failure):
    old = tmp_path / "a.csv"
    old.write_text("old")

    def write():
        with staged([old, tmp_path / "folder"], force=True) as (place, folder):
            place.write_text("half")
            folder.mkdir()
            (folder / "x").write_text("half")
            raise failure

    with pytest.raises(type(failure)) as caught:
        write()
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]
    assert old.read_text() == "old"
    if isinstance(failure, OSError):
        assert f"could not write {old}" in str(caught.value)
        assert "No space left on device" in str(caught.value)


def test_a_file_that_appears_meanwhile_is_not_replaced(tmp_path):
    target = tmp_path / "a.csv"

    def write():
        with staged([target], force=False) as (place,):
            place.write_text("mine")
            target.write_text("theirs")

    with pytest.raises(FileExistsError, match="exists already"):
        write()
    assert target.read_text() == "theirs"
    assert len(list(tmp_path.iterdir())) == 1


def test_outputs_are_checked_before_any_work(tmp_path, monkeypatch):
    data, old = tmp_path / "data.csv", tmp_path / "old.csv"
    data.write_text("x")
    old.write_text("x")
    link = tmp_path / "link.csv"
    link.symlink_to(data)
    (tmp_path / "folder").mkdir()
    check_outputs([tmp_path / "new.csv"], [data], force=False)
    check_outputs([old], [data], force=True)
    for paths, force, message in [
        ([old], False, "add --force"),
        ([data], True, "never written over"),
        ([link], True, "never written over"),
        ([tmp_path / "folder"], True, "never replaced"),
        ([tmp_path / "no" / "x.csv"], True, "no is not a folder"),
        ([old / "x.csv"], True, "old.csv is not a folder"),
        ([tmp_path / "x", tmp_path / "folder" / ".." / "x"], True, "two outputs"),
    ]:
        with pytest.raises((OSError, ValueError), match=message):
            check_outputs(paths, [data], force=force)

    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("pathlib.Path.touch", refuse)
    with pytest.raises(OSError, match=r"new\.csv cannot be written: Permission denied"):
        check_outputs([tmp_path / "new.csv"], [data], force=False)
    assert len(list(tmp_path.iterdir())) == 4
