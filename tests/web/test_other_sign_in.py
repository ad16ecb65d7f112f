"""Room for other ways to sign in, such as OpenID Connect: whoever finds out who somebody is ends in ``accept``."""

from pathlib import Path

import httpx
import pytest
from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from tests.web.conftest import running
from tests.web.factory import make_world
from tests.web.people import quick_hash
from vitriflow.catalog import Catalog, Person, upgrade
from vitriflow.elogbook.people import add_person, find_person, set_person
from vitriflow.elogbook.permissions import Role
from vitriflow.elogbook.tokens import start_session
from vitriflow.facility.signing_in import Identity, Refused, accept
from vitriflow.web import create_app
from vitriflow.web.auth import check_declared, needs
from vitriflow.web.auth_pages import cookie_name, put_cookie
from vitriflow.web.site import site_of

NINA = Identity("nina", "oidc", name="Nina", email="nina@example.org", unix_name="nina")


@pytest.fixture
def catalog(tmp_path: Path):
    made = Catalog(f"sqlite:///{tmp_path / 'catalog.db'}")
    upgrade(made)
    yield made
    made.close()


def person(catalog: Catalog, login: str) -> Person:
    return catalog.read(lambda orm: find_person(orm, login))


def test_somebody_is_made_at_the_first_sign_in_and_kept_in_step(catalog: Catalog) -> None:
    made = accept(catalog, NINA)
    assert (made.source, made.name, made.password_hash) == ("oidc", "Nina", None)
    changed = Identity("nina", "oidc", name="Nina N.", facility_role=str(Role.OPERATOR))
    accept(catalog, changed)
    assert (person(catalog, "nina").name, person(catalog, "nina").facility_role) == ("Nina N.", "operator")


def test_an_account_of_another_source_is_not_taken_over(catalog: Catalog) -> None:
    catalog.write(
        lambda orm: (
            add_person(
                orm, "nina", facility_role="administrator", password_hash=quick_hash("x" * 12), source="local"
            ).id
        )
    )
    with pytest.raises(Refused):
        accept(catalog, NINA)
    assert person(catalog, "nina").source == "local"


def test_who_was_deactivated_here_stays_out(catalog: Catalog) -> None:
    accept(catalog, NINA)
    catalog.write(lambda orm: set_person(orm, find_person(orm, "nina"), {"active": False}) and None)
    with pytest.raises(Refused):
        accept(catalog, NINA)


def test_a_room_of_its_own_signs_a_browser_in(tmp_path: Path) -> None:
    """What a provider's answer has to lead to, in a router beside ours; the how-to shows the same."""
    router = APIRouter(include_in_schema=False)

    @router.get("/sign-in/oidc", dependencies=[needs("sign-in")])
    def answered(request: Request) -> Response:
        site = site_of(request)
        known = accept(site.catalog, NINA, request.client.host if request.client else "")
        secret, _ = site.catalog.write(lambda orm: start_session(orm, known, site.session_hours))
        answer = RedirectResponse("/", status_code=303)
        put_cookie(request, answer, cookie_name(request), secret, round(site.session_hours * 3600))
        return answer

    catalog = Catalog(f"sqlite:///{tmp_path / 'catalog.db'}")
    upgrade(catalog)
    world = make_world(tmp_path, catalog=catalog)
    catalog.write(lambda orm: add_person(orm, "ada", facility_role="administrator").id)
    app = create_app(world.url(), poll_s=0.1)
    app.include_router(router)
    check_declared(app)
    with running(app) as address, httpx.Client(base_url=address) as browser:
        assert browser.get("/me").status_code == 303  # nobody yet
        assert browser.get("/sign-in/oidc").status_code == 303
        shown = browser.get("/me")
        assert shown.status_code == 200
        assert "nina" in shown.text
