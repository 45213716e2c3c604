"""Links planted in OUT or in ``.work``: never followed, never written through."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import sabiprep
from sabiprep import OutputError, PackOptions
from support.files import files_of
from support.stopped_runs import clean as clean
from support.stopped_runs import corpus as corpus
from support.stopped_runs import kept as kept
from support.stopped_runs import stopped as stopped

# Links


def plant(folder: Path, victim: Path) -> int:
    """Put links to a folder, to a file and to nowhere into every folder below ``folder``, and into
    itself.
    """
    folders = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
    for at in folders:
        for name, target in (
            ("to-folder", victim),
            ("to-file", victim / "a"),
            ("nowhere", victim / "none"),
        ):
            (at / name).symlink_to(target)
    return len(folders)


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A folder that must stay as it is."""
    (tmp_path / "victim" / "train" / "sub").mkdir(parents=True)
    for name in ("a", "train/b", "train/sub/c"):
        (tmp_path / "victim" / name).write_text("keep", "utf-8")
    return tmp_path / "victim"


def assert_intact(victim: Path) -> None:
    assert files_of(victim) == dict.fromkeys(("a", "train/b", "train/sub/c"), b"keep")


def test_overwriting_never_follows_a_link(
    corpus: Path, clean: dict[str, bytes], kept: Path, victim: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(kept, out)
    assert plant(out, victim) >= 5  # OUT, train, validation, .work and its spool
    (out / "validation" / "shard-00000.arrow").unlink()
    (out / "validation" / "shard-00000.arrow").symlink_to(victim / "a")
    sabiprep.pack(corpus, out, PackOptions(overwrite=True))
    assert_intact(victim)
    assert {name: data for name, data in files_of(out).items() if name in clean} == clean
    assert not list((out / "train").glob("*to-*")) and not (out / ".work").exists()
    # A folder of the dataset that is a link itself is replaced by a folder.
    shutil.rmtree(out / "train")
    (out / "train").symlink_to(victim / "train")
    sabiprep.pack(corpus, out, PackOptions(overwrite=True))
    assert_intact(victim)
    assert not (out / "train").is_symlink() and sabiprep.verify(out).ok


def test_a_stopped_run_is_cleared_without_following_links(
    corpus: Path, clean: dict[str, bytes], stopped: list[Path], victim: Path, tmp_path: Path
) -> None:
    for nth, left in enumerate(stopped):
        out = tmp_path / f"out-{nth}"
        shutil.copytree(left, out)
        plant(out / ".work", victim)
        (out / ".work" / ".state.json.sabiprep-tmp").unlink(missing_ok=True)
        (out / ".work" / ".state.json.sabiprep-tmp").symlink_to(victim / "a")
        sabiprep.pack(corpus, out, PackOptions(resume=nth % 2 == 0, overwrite=nth % 2 == 1))
        assert_intact(victim)
        # Links that lay among shards moved with them, as links.
        assert {
            name: data for name, data in files_of(out).items() if not name.endswith("to-file")
        } == clean
        assert not (out / ".work").exists()


@pytest.mark.parametrize("name", ["", "train", "spool", "done", "lock", "state.json"])
def test_a_work_folder_that_leads_elsewhere_is_refused(
    corpus: Path, stopped: list[Path], victim: Path, tmp_path: Path, name: str
) -> None:
    out = tmp_path / "out"
    shutil.copytree(stopped[0], out)
    at = out / ".work" / name
    if at.is_dir():
        shutil.rmtree(at)
    else:
        at.unlink(missing_ok=True)
    at.symlink_to(victim / "train" if name not in ("lock", "state.json") else victim / "a")
    for options in ({"resume": True}, {"overwrite": True}, {}):
        with pytest.raises(OutputError, match=r"(?s)is a link.*remove the link"):
            sabiprep.pack(corpus, out, PackOptions(**options))
    assert_intact(victim)


def test_out_may_be_a_link_to_a_folder(
    corpus: Path, clean: dict[str, bytes], kept: Path, tmp_path: Path
) -> None:
    """The dataset it leads to is the one that is replaced; the link stays."""
    shutil.copytree(kept, tmp_path / "real")
    (tmp_path / "real" / ".work" / "state.json").unlink()
    shutil.rmtree(tmp_path / "real" / ".work")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(OutputError, match="holds a dataset"):
        sabiprep.pack(corpus, tmp_path / "link")
    sabiprep.pack(corpus, tmp_path / "link", PackOptions(overwrite=True))
    assert (tmp_path / "link").is_symlink() and files_of(tmp_path / "real") == clean
    (tmp_path / "dangling").symlink_to(tmp_path / "none")
    with pytest.raises(OutputError, match=r"(?s)is a link that leads nowhere.*remove the link"):
        sabiprep.pack(corpus, tmp_path / "dangling", PackOptions(overwrite=True))
