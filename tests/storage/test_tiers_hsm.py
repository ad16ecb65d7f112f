"""A tape library behind its manager's commands: real programs, exact command lines."""

import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.storage.hsm import Library
from tests.storage.jobs import NAMES, flip, job_in, quiet
from vitriflow.config import TierSection
from vitriflow.storage import ArchiveError, Tier, hash_past_cache, open_tier


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "session"


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(tmp_path / "library")


def hsm(library: Library, **more: Any) -> Tier:
    return open_tier("tape", TierSection.model_validate(library.settings | more))


PLAIN = NAMES[:3]


def test_files_go_to_tape_by_exactly_these_commands(library: Library, root: Path) -> None:
    job = job_in(root, PLAIN)
    hsm(library, batch=2).write(job, quiet)
    first, second, third = (str(root / name) for name in PLAIN)
    state = [["dsmls", first, second], ["dsmls", third]]
    assert library.calls == [
        *state,
        ["dsmmigrate", first, second],
        ["dsmmigrate", third],
        *state,  # all on tape?
        *state,  # what has to come back
        ["dsmrecall", first, second],
        ["dsmrecall", third],
        *state,
    ]


def test_files_leave_stubs_and_come_back_proved(library: Library, root: Path) -> None:
    job, tier = job_in(root, PLAIN), hsm(library)
    made = tier.write(job, quiet)
    assert tier.residence(root, job.files) == {"premigrated": 3}
    tier.vacate(root, job.files, quiet)
    assert tier.residence(root, job.files) == {"migrated": 3}
    assert all((root / file.path).stat().st_size == file.size for file in job.files)
    assert hash_past_cache(root / PLAIN[0]) != job.files[0].blake3  # a stub
    tier.check_present(made.location, root, job.files)
    tier.recall(made.location, root, job.files, quiet)
    assert [hash_past_cache(root / file.path) for file in job.files] == [file.blake3 for file in job.files]


def test_a_damaged_tape_is_found(library: Library, root: Path) -> None:
    job, tier = job_in(root, PLAIN), hsm(library)
    made = tier.write(job, quiet)
    tier.vacate(root, job.files, quiet)
    flip(library.tapes()[0], 5)
    with pytest.raises(ArchiveError, match="tape's copy is damaged"):
        tier.recall(made.location, root, job.files, quiet)


def test_the_managers_word_can_be_taken_for_proof(library: Library, root: Path) -> None:
    job = job_in(root, PLAIN)
    made = hsm(library, prove="state", premigrate=library.command("dsmpremigrate")).write(job, quiet)
    assert made.details["proved_by"] == "state"
    assert [call[0] for call in library.calls if call[0] != "dsmls"] == ["dsmpremigrate"] * 1


def test_a_list_of_files_can_be_given_in_a_file(library: Library, root: Path) -> None:
    job = job_in(root, PLAIN)
    hsm(library, migrate=library.command("dsmmigrate", "-filelist={list}")).write(job, quiet)
    (call,) = [call for call in library.calls if call[0] == "dsmmigrate"]
    assert call[1].startswith("-filelist=")
    assert not Path(call[1].removeprefix("-filelist=")).exists()
    with pytest.raises(ArchiveError, match="without a line break"):
        names = library.command("dsmls", "-filelist={list}")
        hsm(library, state=names).write(job_in(root, ("raw/two\nlines",)), quiet)


def test_a_name_is_one_argument_whatever_it_holds(library: Library, root: Path) -> None:
    names = ("raw/a; rm -rf $HOME `x` \"'.mrc", "raw/-force")
    job = job_in(root, names)
    hsm(library).write(job, quiet)
    assert ["dsmmigrate", *(str(root / name) for name in names)] in library.calls


@pytest.mark.parametrize("program", ["dsmmigrate", "dsmrecall", "dsmls"])
def test_a_command_that_fails_is_told_and_can_be_given_again(
    library: Library, root: Path, program: str
) -> None:
    job, tier = job_in(root, PLAIN), hsm(library)
    library.fail(program)
    with pytest.raises(ArchiveError, match=r"exit code 0.*the library is on fire"):
        tier.write(job, quiet)
    library.fail(program, on=False)
    tier.write(job, quiet)
    assert tier.residence(root, job.files) == {"premigrated": 3}


def test_a_state_that_can_not_be_understood_is_an_error(library: Library, root: Path) -> None:
    with pytest.raises(ArchiveError, match="state_line"):
        hsm(library, state_line=r"^(?P<state>\w) in (?P<name>.*)$").write(job_in(root, PLAIN), quiet)
    with pytest.raises(ArchiveError, match="one of x"):
        hsm(library, states={"x": "resident"}).write(job_in(root, PLAIN), quiet)
    with pytest.raises(ArchiveError, match="Check its path"):
        hsm(library, state=["/no/such/program", "{files}"]).write(job_in(root, PLAIN), quiet)


def test_a_command_that_hangs_is_ended(library: Library, root: Path) -> None:
    slow = library.programs / "slow"
    slow.write_text("#!/bin/sh\nsleep 60\n")
    slow.chmod(0o755)
    with pytest.raises(ArchiveError, match="still running"):
        hsm(library, state=[str(slow), "{files}"], timeout_s=0.2).write(job_in(root, PLAIN), quiet)


def test_tars_can_be_what_goes_to_tape(library: Library, root: Path, tmp_path: Path) -> None:
    (tmp_path / "archive").mkdir()
    job, tier = job_in(root, PLAIN), hsm(library, path=str(tmp_path / "archive"))
    made = tier.write(job, quiet)
    tar = Path(made.location) / "part-0001.tar"
    assert ["dsmmigrate", str(tar)] in library.calls
    with tarfile.open(tar) as opened:
        assert opened.getnames() == list(PLAIN)
    tier.vacate(root, job.files, quiet)
    assert not (root / PLAIN[0]).exists()
    tier.recall(made.location, root, job.files, quiet)
    assert [hash_past_cache(root / file.path) for file in job.files] == [file.blake3 for file in job.files]


def test_rules_for_gpfs_keep_what_is_hot_and_move_only_raw_files() -> None:
    tier = open_tier("tape", TierSection.model_validate({"kind": "hsm", "external_pool": "it's tape"}))
    text = tier.policy(Path("/gpfs/em_data"), {"/gpfs/em_data/202611/e1/100%/s1": "s1: is active */ DROP"})
    assert (
        text
        == """\
/* vitriflow, tier 'tape': written by 'vitriflow archive --print-policy'.
   Test:  mmapplypolicy FILESYSTEM -P THIS_FILE -I test
   It's true for the sessions of the moment: write it again before each run. */

RULE 'vitriflow-tape-pool' EXTERNAL POOL 'it''s tape'
  EXEC '/usr/lpp/mmfs/bin/mmpolicyExec-hsm'

/* s1: is active * / DROP */
RULE 'vitriflow-tape-hot-1' EXCLUDE
  WHERE PATH_NAME LIKE '/gpfs/em!_data/202611/e1/100!%/s1/%' ESCAPE '!'

/* half-written files */
RULE 'vitriflow-tape-partial' EXCLUDE
  WHERE PATH_NAME LIKE '/gpfs/em!_data/%' ESCAPE '!' AND NAME LIKE '.%'

RULE 'vitriflow-tape-move' MIGRATE FROM POOL 'system'
  THRESHOLD(85,70)
  WEIGHT(CURRENT_TIMESTAMP - ACCESS_TIME)
  TO POOL 'it''s tape'
  WHERE PATH_NAME LIKE '/gpfs/em!_data/%/raw/%' ESCAPE '!'
"""
    )


def test_a_directory_has_no_rules(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="kind = hsm"):
        open_tier("a", TierSection.model_validate({"path": str(tmp_path)})).policy(tmp_path, {})
