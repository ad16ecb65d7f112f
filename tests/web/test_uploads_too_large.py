"""Uploads that are too large: refused before they're read, or while they are, and nothing is left behind."""

import http.client
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from tests.databases import new_sqlite
from tests.web.conftest import running
from vitriflow.config import Config
from vitriflow.errors import BadParameter
from vitriflow.facility.attachments import FOLDER, LARGEST_BYTES, store_file
from vitriflow.web import create_app


def test_a_file_for_the_log_that_is_too_large_is_refused_before_it_is_sent(tmp_path: Path) -> None:
    new_sqlite(tmp_path / "catalog.db").close()
    app = create_app(f"sqlite:///{tmp_path / 'catalog.db'}", config=Config().with_root(tmp_path))
    with running(app) as address, httpx.Client(base_url=address, timeout=60) as client:
        assert client.post("/api/experiments", json={"name": "x"}).status_code == 201
        entry = client.post("/api/experiments/x/log", json={"text": "with a file"}).json()["id"]
        path = f"/api/experiments/x/log/{entry}/files"
        assert client.post(path, files={"file": ("a.txt", b"a few bytes")}).status_code == 201
        kept = sorted(tmp_path.glob(f"{FOLDER}/**/*"))
        host = address.removeprefix("http://")
        with closing(http.client.HTTPConnection(host, timeout=60)) as wire:
            wire.putrequest("POST", path)
            wire.putheader("content-type", "multipart/form-data; boundary=b")
            wire.putheader("content-length", str(10 * LARGEST_BYTES))
            wire.endheaders()  # and not a byte of it
            with closing(wire.getresponse()) as answer:
                assert answer.status == 413
    assert sorted(tmp_path.glob(f"{FOLDER}/**/*")) == kept


def test_one_that_only_turns_out_to_be_too_large_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(BadParameter, match="at most"):
        store_file(tmp_path, [b"12345", b"67890", b"1"], largest=10)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert store_file(tmp_path, [b"12345", b"67890"], largest=10).size == 10
