"""status, explain and serve: what people ask about a session that ran."""

import re
import urllib.error
import urllib.request
from typing import Any

import pytest
from blake3 import blake3

from tests.cli.conftest import Processed
from tests.facility.command import House, until

pytestmark = pytest.mark.slow


def test_status_counts_every_session_and_they_add_up(processed: Processed) -> None:
    (entry,) = processed.house.json("status")
    counts = entry["counts"]
    assert entry["session"] == processed.key
    assert entry["state"] == "closed"
    assert counts["came_in"] == 3
    assert counts["came_in"] == sum(counts[n] for n in ("done", "rejected", "quarantined", "failed", "open"))
    assert (counts["done"], counts["quarantined"]) == (2, 1)
    assert entry["nodes"]["motion"]["done"] == 2
    assert entry["files"]["movie"] == 3
    table = processed.house.vitriflow("status").stdout
    assert re.search(rf"{processed.key}\s+closed\s+3\s+2\s+0\s+1\s+0\s+0", table)


def test_status_of_one_session_names_what_went_wrong(processed: Processed) -> None:
    (entry,) = processed.house.json("status", processed.key)
    (problem,) = entry["problems"]
    assert problem["exposure"] == processed.truncated
    assert problem["reason_code"] == "file.truncated"
    text = processed.house.vitriflow("status", processed.key).stdout
    assert processed.truncated in text
    assert problem["reason"] in text


def test_status_of_a_session_that_is_not_there_names_those_that_are(processed: Processed) -> None:
    done = processed.house.vitriflow("status", "no-such-session", expect=2)
    assert processed.key in done.stderr


def test_status_without_a_catalog_says_how_to_get_one(house: House) -> None:
    done = house.vitriflow("status", expect=2)
    assert "vitriflow run" in done.stderr


def test_explain_leads_from_a_result_back_to_the_cameras_file(processed: Processed) -> None:
    chain = processed.house.json("explain", processed.key, processed.sound)
    assert [result["node"] for result in chain["results"]] == ["motion", "ctf", "pick", "preview"]
    content = (processed.played.source / processed.sound).read_bytes()
    for result in chain["results"]:
        assert result["status"] == "done"
        assert {"step", "step_version", "parameters", "host", "started_at"} <= result.keys()
        ends = list(_ends(result))
        assert ends
        for hashed, end in ends:
            assert end["key"] == processed.sound
            assert end["size"] == len(content)
            assert end["blake3"] == hashed == blake3(content).hexdigest()


def _ends(link: dict[str, Any]) -> Any:
    """Where a chain ends: the hash that the step was given, and the camera's file."""
    for source in link["made_from"].values():
        if "camera_file" in source:
            yield source["hash_blake3"], source["camera_file"]
        else:
            yield from _ends(source)


def test_explain_takes_part_of_a_name_and_one_node(processed: Processed) -> None:
    part = processed.sound.split("FoilHole_")[1].split("_")[0]
    chain = processed.house.json("explain", processed.key, part, "--node", "ctf")
    assert chain["exposure"] == processed.sound
    assert [result["node"] for result in chain["results"]] == ["ctf"]


def test_explain_reads_as_text(processed: Processed) -> None:
    text = processed.house.vitriflow("explain", processed.key, processed.sound).stdout
    for part in ("motion.native", "voltage_kV: 200.0", "voltage_kV: file", "camera_file", processed.sound):
        assert part in text


def test_explain_says_why_a_broken_file_has_no_results(processed: Processed) -> None:
    chain = processed.house.json("explain", processed.key, processed.truncated)
    assert chain["state"] == "problem"
    assert chain["reason_code"] == "file.truncated"


def test_explain_of_an_unclear_or_unknown_exposure_says_so(processed: Processed) -> None:
    several = processed.house.vitriflow("explain", processed.key, "FoilHole", expect=2)
    assert "several" in several.stderr
    none = processed.house.vitriflow("explain", processed.key, "nothing-like-it", expect=2)
    assert "found none" in none.stderr


def _answer(address: str) -> str:
    """What a server says there; nothing as long as it doesn't listen."""
    try:
        with urllib.request.urlopen(address, timeout=120) as answer:
            return str(answer.read().decode())
    except urllib.error.URLError:
        return ""


def test_serve_shows_the_session(processed: Processed) -> None:
    house = processed.house
    with house.running("serve", "--port", "0") as server:
        address = until(lambda: re.search(r"http://127\.0\.0\.1:([1-9]\d*)/", house.said))
        told = until(lambda: _answer(f"{address.group(0)}api/sessions"))  # it says where before it listens
        assert processed.key in told
        assert server.poll() is None


def test_run_with_serve_serves_while_it_watches_and_takes_the_pages_down_with_it(
    processed: Processed, house: House
) -> None:
    house.config.write_text(house.config.read_text() + "\n[web]\nport = 0\n")
    with house.running("run", processed.played.source, "--serve", *processed.played.light) as process:
        found = until(lambda: re.search(r"pages on\s+http://127\.0\.0\.1:([1-9]\d*)/", house.said))
        address = found.group(0).split()[-1]
        until(lambda: "2 done" in house.said)
        told = until(lambda: _answer(f"{address}api/sessions"))
        assert house.session().key in told
        process.terminate()
        assert process.wait(120) == 0
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(address, timeout=5)
