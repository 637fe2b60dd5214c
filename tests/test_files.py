"""Files appear whole or not at all, and several together or none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mmedge.errors import OutputError
from mmedge.files import kept_part_of, part_of, publish, refuse_unwritable, written_together, written_whole


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write(part: Path, raised: BaseException) -> None:
    part.write_text("half")
    raise raised


def test_a_file_has_its_name_when_the_block_has_ended(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    target.write_text("old")
    part_of(target).write_text("of a run that was killed, and longer")
    os.link(target, kept_part_of(target))
    with written_whole(target) as part:
        assert (part.parent, part.exists(), target.read_text()) == (tmp_path, False, "old")
        part.write_text("new")
    assert (target.read_text(), names(tmp_path)) == ("new", ["a.json"])


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (OSError(28, "No space left on device"), OutputError),
        (KeyError("also"), OutputError),
        (ValueError("a bug"), ValueError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
def test_what_fails_inside_leaves_the_old_file_alone(
    tmp_path: Path, raised: BaseException, expected: type[BaseException]
) -> None:
    target = tmp_path / "a.json"
    target.write_text("old")
    with pytest.raises(expected) as caught, written_whole(target, also=(KeyError,)) as part:
        write(part, raised)
    if isinstance(caught.value, OutputError):
        assert str(caught.value).startswith(f"cannot write `{target}`: ")
        assert "Errno" not in str(caught.value)
        assert str(tmp_path) in caught.value.hint
    assert (target.read_text(), names(tmp_path)) == ("old", ["a.json"])


@pytest.mark.parametrize(
    ("where", "overwrite", "said"),
    [
        ("no/a.json", True, "`.*no` does not exist"),
        ("file/a.json", True, "`.*file` is not a folder"),
        ("folder", True, "is a folder"),
        ("file", False, "exists already"),
        ("link", False, "exists already"),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path: Path, where: str, overwrite: bool, said: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(OutputError, match=said) as caught:
        refuse_unwritable([tmp_path / "new", tmp_path / where], overwrite=overwrite)
    assert caught.value.hint
    refuse_unwritable([tmp_path / "new", tmp_path / "file"], overwrite=True)
    assert names(tmp_path) == ["file", "folder", "link"]


@pytest.mark.parametrize("where", ["no/a.json", "file/a.json", "folder"])
def test_where_nothing_can_be_written_it_is_said(tmp_path: Path, where: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="cannot write"), written_whole(tmp_path / where) as part:
        part.write_text("new")
    assert names(tmp_path) == ["file", "folder"]


def test_of_several_none_appears_unless_all_were_written(tmp_path: Path) -> None:
    targets = [tmp_path / name for name in ("a.md", "a.json")]
    with pytest.raises(OutputError, match=r"a\.json"), written_together(targets) as parts:
        write(parts[0], OSError("refused"))
    with pytest.raises(ValueError, match="nobody wrote"), written_together(targets) as parts:
        parts[0].write_text("new")
    assert names(tmp_path) == []
    with written_together(targets) as parts:
        for part in parts:
            part.write_text("new")
    assert names(tmp_path) == ["a.json", "a.md"]


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_rename_that_fails_half_way_rolls_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool, error: type[BaseException]
) -> None:
    """The operating system refuses the third of four renames; two have been done by then."""
    targets = [tmp_path / name for name in ("a", "b", "c", "map")]
    for target in targets:
        part_of(target).write_bytes(b"new")
    for target in (targets[0], targets[2], targets[3]):
        target.write_bytes(b"old")
    replace, done = os.replace, []

    def third_fails(source: Path, target: Path) -> None:
        done.append(target.name)
        if len(done) == 3:
            raise error("refused")
        replace(source, target)

    def refuse(*_: object) -> None:
        raise OSError("no hard links here")

    monkeypatch.setattr(os, "replace", third_fails)
    if not links:
        monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(error, match="refused"):
        publish(targets)
    assert done[:3] == ["a", "b", "c"]
    assert [t.read_bytes() if t.exists() else None for t in targets] == [b"old", None, b"old", b"old"]
    assert not list(tmp_path.glob("*.old.part"))
