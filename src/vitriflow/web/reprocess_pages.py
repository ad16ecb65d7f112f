"""Process a session again with changed parameters, and look at two processings side by side."""

from collections.abc import Mapping
from typing import Annotated
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from vitriflow.catalog import views
from vitriflow.elogbook.permissions import Caller
from vitriflow.errors import BadParameter, BadTemplate
from vitriflow.facility.reprocess import reprocess, reprocess_fields
from vitriflow.facility.session_form import BadForm
from vitriflow.web import words
from vitriflow.web.api import SessionKey, Word
from vitriflow.web.auth import CSRF_FIELD, needs
from vitriflow.web.comparing import compared, differences, pair_of, paired, plot_of
from vitriflow.web.filters import Filter, Wanted
from vitriflow.web.problems import NotFound
from vitriflow.web.selecting import PARTS, filter_from, filter_words, find_exposures, is_open
from vitriflow.web.site import site_of
from vitriflow.web.table import SHOWN

Maker = Annotated[Caller, needs("session.reprocess")]
Named = Annotated[str, Query(max_length=64)]
router = APIRouter(include_in_schema=False)
_ONLY = "only-"  # before the parts of the filter in the form
_WHICH = "which"  # all or selected


@router.get("/sessions/{key}/reprocess", dependencies=[needs("session.reprocess")])
def form_page(request: Request, key: SessionKey, wanted: Wanted, base: Named = "") -> HTMLResponse:
    """The form of a new processing; with filters, of the exposures that pass them."""
    return _form(request, key, base, "", {}, {}, wanted)


def _form(
    request: Request,
    key: str,
    base: str,
    name: str,
    answers: Mapping[str, str],
    wrong: Mapping[str, str],
    wanted: Filter,
    which: str = "selected",
) -> HTMLResponse:
    site = site_of(request)
    scene, chosen = site.read(lambda db: find_exposures(site, db, key, base or None, wanted))
    if scene.processing is None:
        raise NotFound("processing", "one to begin from", "none yet", "Wait until processing has begun.")
    fields = reprocess_fields(site.catalog, key, scene.processing.name)
    asked = {field.name for field, _ in fields}
    values = {
        "scene": scene,
        "session": scene.session,
        "base": scene.processing.name,
        "name": name,
        "fields": fields,
        "groups": list(dict.fromkeys(field.group for field, _ in fields)),
        "answers": answers,
        "wrong": wrong,
        "chosen": None if is_open(wanted) else len(chosen),
        "chosen_words": filter_words(wanted, scene),
        "only": {f"{_ONLY}{part}": getattr(wanted, part) for part in PARTS},
        "which": which,
        "elsewhere": [
            f"{name}: {text}" if name else text for name, text in wrong.items() if name not in asked
        ],
    }
    return site.render(request, "session_reprocess.html", values, 422 if wrong else 200)


@router.post("/sessions/{key}/reprocess")
async def begin(request: Request, caller: Maker, key: SessionKey) -> Response:
    """Begin a processing with the parameters of a form; only what was changed is sent on."""
    from starlette.concurrency import run_in_threadpool

    sent = {name: str(value) for name, value in (await request.form()).items() if name != CSRF_FIELD}
    return await run_in_threadpool(_begin, request, caller, key, sent)


def _begin(request: Request, caller: Caller, key: str, sent: dict[str, str]) -> Response:
    site = site_of(request)
    base, name = sent.pop("base", "")[:64], sent.pop("name", "")[:65].strip()
    which = sent.pop(_WHICH, "all")
    parts = {one: sent.pop(one)[:1500] for one in list(sent) if one.startswith(_ONLY)}
    wanted = filter_from({one.removeprefix(_ONLY): value for one, value in parts.items()})
    exposures, said = None, ""
    if which == "selected":
        scene, exposures = site.read(lambda db: find_exposures(site, db, key, base or None, wanted))
        said = filter_words(wanted, scene)
    try:
        reprocess(site.catalog, caller, key, base, name, sent, exposures=exposures, chosen_by=said)
    except BadForm as error:
        return _form(request, key, base, name, sent, error.problems, wanted, which)
    except (BadParameter, BadTemplate) as error:
        return _form(request, key, base, name, sent, {"": str(error)}, wanted, which)
    home = f"/sessions/{quote(key, safe='')}"
    query = urlencode({"first": base, "second": name})
    return RedirectResponse(f"{home}/compare?{query}", 303)


@router.get("/sessions/{key}/compare", dependencies=[needs("session.read")])
def compare_page(
    request: Request,
    key: SessionKey,
    first: Named = "",
    second: Named = "",
    quantity: Word = "fit_resolution_A",
) -> HTMLResponse:
    """Two processings of a session, exposure by exposure."""
    site = site_of(request)
    one, two = site.read(lambda db: compared(site, db, key, first, second))
    assert one.processing is not None
    assert two.processing is not None
    if quantity not in SHOWN:
        raise BadParameter("quantity", "one of " + ", ".join(SHOWN), repr(quantity)[:60])
    left, right = paired(one, two, quantity)
    number = two.processing.id
    values = {
        "scene": two,
        "session": two.session,
        "first": one.processing,
        "second": two.processing,
        "counts": [(scene.processing, scene.snapshot.counts()) for scene in (one, two)],
        "changes": differences(one.processing.parameters, two.processing.parameters),
        "pairs": [pair_of(one, two, name) for name in SHOWN],
        "quantity": quantity,
        "quantities": [(name, words.QUANTITIES[name].label) for name in SHOWN],
        "plot": plot_of(left, right),
        "begun": site.read(lambda db: views.first_event(db, number)),
    }
    return site.render(request, "session_compare.html", values)
