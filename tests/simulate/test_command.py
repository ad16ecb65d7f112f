"""The command ``vitriflow simulate``."""

import json

import pytest
import typer
from typer.testing import CliRunner

from vitriflow.cli.simulate import simulate
from vitriflow.errors import BadParameter

app = typer.Typer()
app.command()(simulate)
SMALL = ["--shape", "192x256", "--frames", "3", "--diameter", "60", "--spacing", "100"]


def test_it_writes_a_session_and_says_where(tmp_path):
    result = CliRunner().invoke(
        app, [str(tmp_path / "out"), *SMALL, "--exposures", "3", "--name", "été", "--fault", "empty=0.4"]
    )
    assert result.exit_code == 0, result.output
    assert "3 movies in" in result.output
    movies = list((tmp_path / "out/microscope/été").rglob("*_Fractions.tiff"))
    assert sorted(m.stat().st_size == 0 for m in movies) == [False, False, True]
    assert json.loads((tmp_path / "out/truth/session.json").read_text())["exposures"] == 3


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--shape", "big"], "--shape"),
        (["--fault", "truncated"], "--fault"),
        (["--fault", "gremlins=0.5"], "gremlins"),
        (["--layout", "leginon"], "layout"),
        (["--frames", "3", "--dose", "-1"], "dose_per_frame"),
        (["--tilts", "5"], "EPU"),
    ],
)
def test_a_wrong_option_is_named(tmp_path, options, word):
    result = CliRunner().invoke(app, [str(tmp_path), *options])
    assert isinstance(result.exception, BadParameter)
    assert word in str(result.exception)
    assert not list(tmp_path.iterdir())
