import errno
import io
import os
import sys

import pytest

from sktda.files import STANDARD, check_outputs, staged


def test_all_outputs_appear_together(tmp_path):
    targets = [tmp_path / "a.csv", tmp_path / "b.csv"]
    with staged(targets, force=False) as places:
        for place in places:
            place.write_text("new")
            assert place.parent.parent == tmp_path  # a rename is only atomic within one file system
            assert place.parent.stat().st_mode & 0o077 == 0  # what replaces a private file is not for everybody
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


def replacing(paths):
    with staged(paths, force=True) as places:
        for place in places:
            place.write_text("new")


@pytest.mark.parametrize("links", [True, False], ids=["hard links", "no hard links"])
@pytest.mark.parametrize("failure", [KeyboardInterrupt(), OSError(errno.EIO, "Input/output error")])
@pytest.mark.parametrize("last", [0, 1, 2])
def test_what_was_replaced_already_is_put_back(tmp_path, monkeypatch, last, failure, links):
    paths = [tmp_path / "a.csv", tmp_path / "b.csv", tmp_path / "c.csv"]
    for path in paths[:2]:
        path.write_text(path.name)
    done, replace = [], os.replace

    def fail(source, target):
        done.append(target)
        if len(done) == last + 1:
            raise failure
        replace(source, target)

    def no_links(*paths):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "replace", fail)
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    with pytest.raises(type(failure)) as caught:
        replacing(paths)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a.csv": "a.csv", "b.csv": "b.csv"}
    assert isinstance(failure, KeyboardInterrupt) or "nothing was left behind" in str(caught.value)


def test_what_cannot_be_put_back_is_said(tmp_path, monkeypatch):
    paths, done, replace = [tmp_path / "a.csv", tmp_path / "b.csv"], [], os.replace

    def fail(source, target):
        done.append(target)
        if len(done) > 1:  # the disk has become one to read only
            raise OSError(errno.EROFS, "Read-only file system")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match=r"Read-only file system; .*a\.csv could not be taken back"):
        replacing(paths)


def test_a_closed_standard_output_leaves_nothing(tmp_path, monkeypatch):
    class Closed(io.StringIO):
        @property
        def buffer(self):
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr(sys, "stdout", Closed())
    with pytest.raises(OSError, match="Broken pipe; nothing was left behind"):
        replacing([tmp_path / "a.csv", STANDARD])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444])
def test_a_replaced_file_keeps_its_mode_and_a_link_its_target(tmp_path, mode):
    (tmp_path / "far").mkdir()
    old, link, dangling = tmp_path / "far" / "old.csv", tmp_path / "link.csv", tmp_path / "dangling.csv"
    old.write_text("old")
    old.chmod(mode)
    link.symlink_to(old)
    dangling.symlink_to(tmp_path / "far" / "new.csv")
    replacing([link, dangling, tmp_path / "plain.csv"])
    assert link.is_symlink()
    assert dangling.is_symlink()
    assert old.read_text() == "new"
    assert (tmp_path / "far" / "new.csv").read_text() == "new"
    assert old.stat().st_mode & 0o777 == mode
    (tmp_path / "touched").touch()
    assert (tmp_path / "plain.csv").stat().st_mode == (tmp_path / "touched").stat().st_mode  # as the umask says
    assert len(list(tmp_path.rglob("*"))) == 7


def test_outputs_are_checked_before_any_work(tmp_path, monkeypatch):
    data, old = tmp_path / "data.csv", tmp_path / "old.csv"
    data.write_text("x")
    old.write_text("x")
    link = tmp_path / "link.csv"
    link.symlink_to(data)
    (tmp_path / "folder").mkdir()
    loop = tmp_path / "loop.csv"
    loop.symlink_to(loop)
    check_outputs([tmp_path / "new.csv"], [data], force=False)
    check_outputs([old], [data], force=True)
    for paths, force, message in [
        ([old], False, "add --force"),
        ([data], True, "never written over"),
        ([link], True, "never written over"),
        ([tmp_path / "folder"], True, "never replaced"),
        ([loop], True, "not a regular file"),
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
    assert len(list(tmp_path.iterdir())) == 5
