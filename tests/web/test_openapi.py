"""Schemathesis reads the API's own description and sends what fits it and what doesn't: nothing answers 500."""

import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from tests.web.conftest import fill, running
from tests.web.factory import make_world
from vitriflow.config import load_config
from vitriflow.web import create_app

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what it warns of on import isn't ours
    import schemathesis
    from hypothesis import HealthCheck, Phase, settings
    from schemathesis.checks import not_a_server_error

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
# Streams of events have no end, and are tested in test_live.
ENDLESS = ("/api/sessions/{key}/live",)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("openapi")
    world = make_world(folder)
    fill(world)
    (folder / "tem1").mkdir(exist_ok=True)
    text = f'[storage]\nroot = "{folder}"\n[microscopes.tem1]\nsources = ["{folder}/tem1"]\n'
    (folder / "facility.toml").write_text(text, encoding="utf-8")
    app = create_app(world.url(), config=load_config(folder / "facility.toml"), poll_s=0.2)
    with running(app) as found:
        yield found


def test_no_request_that_the_description_allows_or_forbids_is_answered_with_500(address: str) -> None:
    schema = schemathesis.openapi.from_url(f"{address}/api/openapi.json")
    tried: list[str] = []
    for result in schema.get_all_operations():
        operation = result.ok()
        if operation.path in ENDLESS:
            continue
        tried.append(operation.label)
        _send(operation)
    assert len(tried) > 30


def _send(operation: Any) -> None:
    @settings(
        max_examples=2,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @_given(operation)
    def once(case: Any) -> None:
        _fill(case)
        case.call_and_validate(checks=[not_a_server_error], timeout=60)

    once()


def _given(operation: Any) -> Any:
    from hypothesis import given

    return given(case=operation.as_strategy())


KNOWN = {"experiment": "C123", "key": "20261120_tem1_apoferritin", "sample": "apoferritin"}


def _fill(case: Any) -> None:
    """Half of the requests are about what's there, so that they get past the first look-up."""
    for name, value in KNOWN.items():
        if name in (case.path_parameters or {}) and len(str(case.path_parameters[name])) % 2:
            case.path_parameters[name] = value
