"""Access control lists of a session's folders: exactly its people, now and for what comes later."""

import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vitriflow.catalog import Base, Catalog, Experiment, Microscope, Sample, Session, SessionState, now
from vitriflow.config import AccessSection, Config
from vitriflow.elogbook.people import add_person, find_person, join_experiment, leave_experiment
from vitriflow.facility.access import apply_folder_access, publish_access
from vitriflow.facility.doctor import Health, examine_acls
from vitriflow.storage.acl import Readers, apply_acls, can_do_acls, readers_of

ALICE, BOB = 60001, 60002


@pytest.fixture(autouse=True)
def _able(tmp_path: Path) -> None:
    why = can_do_acls(tmp_path)
    if why:
        pytest.skip(f"{tmp_path}: {why}")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "session"
    (root / "raw" / "deep").mkdir(parents=True)
    (root / "raw" / "a.tiff").write_bytes(b"a")
    (root / "raw" / "deep" / "b c.xml").write_bytes(b"b")
    (root / "raw" / "a.tiff").chmod(0o644)
    (tmp_path / "elsewhere").write_text("not ours")
    (tmp_path / "elsewhere").chmod(0o644)
    (root / "link").symlink_to(tmp_path / "elsewhere")
    (root / "way out").symlink_to(tmp_path, target_is_directory=True)
    return root


def listed(path: Path) -> dict[str, str]:
    """What getfacl, a program of its own, reads: entry to permissions; default entries with their mark."""
    if shutil.which("getfacl") is None:
        pytest.skip("getfacl is missing: run 'make services' as root")
    done = subprocess.run(
        ["getfacl", "--numeric", "--omit-header", "--no-effective", "--absolute-names", str(path)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return dict(line.rsplit(":", 1) for line in done.stdout.split() if line)


def test_exactly_the_readers_may_read_and_nobody_else(tree: Path, tmp_path: Path) -> None:
    apply_acls(tree, Readers(frozenset({ALICE, BOB}), frozenset({70001})))
    assert listed(tree) == {
        "user:": "rwx", f"user:{ALICE}": "r-x", f"user:{BOB}": "r-x", "group:": "---", "group:70001": "r-x",
        "mask:": "r-x", "other:": "---",
        "default:user:": "rwx", f"default:user:{ALICE}": "r-x", f"default:user:{BOB}": "r-x",
        "default:group:": "---", "default:group:70001": "r-x", "default:mask:": "r-x", "default:other:": "---",
    }  # fmt: skip
    assert listed(tree / "raw" / "a.tiff") == {
        "user:": "rw-", f"user:{ALICE}": "r--", f"user:{BOB}": "r--", "group:": "---", "group:70001": "r--",
        "mask:": "r--", "other:": "---",
    }  # fmt: skip
    for path in tree.rglob("*"):
        if not path.is_symlink():
            assert not stat.S_IMODE(path.stat().st_mode) & 0o007, path
    assert stat.S_IMODE((tmp_path / "elsewhere").stat().st_mode) == 0o644  # links are never followed


def test_what_is_made_later_inherits(tree: Path) -> None:
    apply_acls(tree, Readers(frozenset({ALICE})))
    old = os.umask(0o022)
    try:
        (tree / "raw" / "new").mkdir(mode=0o750)
        (tree / "raw" / "new" / "c.mrc").write_bytes(b"c")
    finally:
        os.umask(old)
    found = listed(tree / "raw" / "new" / "c.mrc")
    assert found[f"user:{ALICE}"] == "r-x"
    assert found["mask:"] == "r--"  # so r-x comes to r--
    assert found["other:"] == "---"
    assert listed(tree / "raw" / "new")[f"default:user:{ALICE}"] == "r-x"


def test_who_leaves_is_out_of_every_file_and_what_is_right_is_left_alone(tree: Path) -> None:
    apply_acls(tree, Readers(frozenset({ALICE, BOB})))
    apply_acls(tree, Readers(frozenset({BOB})))
    for path in (tree, tree / "raw" / "deep", tree / "raw" / "deep" / "b c.xml"):
        assert f"user:{ALICE}" not in listed(path)
        assert f"user:{BOB}" in listed(path)
    again = apply_acls(tree, Readers(frozenset({BOB})))
    assert (again.changed, again.kept) == (0, 1)
    assert apply_acls(tree, Readers(frozenset({BOB})), everything=True).kept == 4


def test_an_interrupted_run_is_taken_up_again(tree: Path) -> None:
    readers = Readers(frozenset({ALICE}))
    apply_acls(tree, readers)
    os.removexattr(tree, "system.posix_acl_default")  # the mark of a finished run is set last
    (tree / "raw" / "a.tiff").chmod(0o604)
    apply_acls(tree, readers)
    assert listed(tree / "raw" / "a.tiff")["other:"] == "---"


def test_an_account_that_this_machine_does_not_know_is_named() -> None:
    readers, unknown = readers_of(["root", "no-such-account"], ["no-such-group"])
    assert readers.users == frozenset({0})
    assert unknown == ["no-such-account", "no-such-group"]


# ---- with the elogbook


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    made = Catalog(f"sqlite:///{tmp_path / 'catalog.db'}")
    Base.metadata.create_all(made.engine)
    yield made
    made.close()


def test_folders_follow_the_people_of_their_experiment(catalog: Catalog, tmp_path: Path) -> None:
    store = tmp_path / "store"
    roots = {name: store / "202611" / f"{name}_tem1" / "grid" / f"s-{name}" for name in ("C1", "C2")}

    def fill(orm: Any) -> None:
        scope = Microscope(name="tem1")
        orm.add(scope)
        orm.flush()
        daemon = add_person(orm, "dora", unix_name="daemon")
        nobody = add_person(orm, "noah", unix_name="nobody")
        for name, root in roots.items():
            (root / "raw").mkdir(parents=True)
            (root / "raw" / "m.tiff").write_bytes(b"m")
            award = Experiment(name=name, created_at=now())
            orm.add(award)
            orm.flush()
            grid = Sample(experiment_id=award.id, name="grid")
            orm.add(grid)
            orm.flush()
            orm.add(
                Session(
                    key=f"s-{name}", microscope_id=scope.id, sample_id=grid.id, state=SessionState.ACTIVE,
                    source="/x", root=str(root), created_at=now(),
                )
            )  # fmt: skip
            join_experiment(orm, award.id, daemon if name == "C1" else nobody, "researcher")

    catalog.write(fill)
    settings = AccessSection(acls=True)
    done = apply_folder_access(store, catalog, settings)
    assert (done.folders, done.problems) == (2, [])
    assert "user:1" in listed(roots["C1"] / "raw" / "m.tiff")
    assert "user:65534" not in listed(roots["C1"] / "raw" / "m.tiff")
    assert "user:65534" in listed(roots["C2"])
    assert stat.S_IMODE((store / "202611").stat().st_mode) == 0o711
    assert "user:1" in listed(store / "202611" / "C1_tem1")
    assert "user:1" not in listed(store / "202611" / "C2_tem1")

    def swap(orm: Any) -> None:
        award = orm.query(Experiment).filter_by(name="C1").one()
        leave_experiment(orm, award.id, find_person(orm, "dora"))
        join_experiment(orm, award.id, find_person(orm, "noah"), "collaborator")

    catalog.write(swap)
    config = Config(access=settings).with_root(store)
    assert publish_access(config, catalog).folders == 1
    found = listed(roots["C1"] / "raw" / "m.tiff")
    assert "user:1" not in found
    assert found["user:65534"] == "r--"


def test_the_doctor_says_whether_the_file_system_keeps_lists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Config(access=AccessSection(acls=True)).with_root(tmp_path)
    assert [one.health for one in examine_acls(asked)] == [Health.GOOD]
    monkeypatch.setattr(
        "vitriflow.facility.doctor.can_do_acls", lambda _: "the file system keeps no POSIX ACLs"
    )
    found = next(iter(examine_acls(asked)))
    assert found.health == Health.BAD
    assert "keeps no POSIX ACLs" in found.text
    assert next(iter(examine_acls(Config().with_root(tmp_path)))).health == Health.NOTE
