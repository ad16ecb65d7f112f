"""Process a session again with changed parameters, and look at two processings side by side."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import quote

import numpy as np
from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from numpy.typing import NDArray
from sqlalchemy.orm import Session as OrmSession

from vitriflow.elogbook.permissions import Caller
from vitriflow.errors import BadParameter, BadTemplate
from vitriflow.facility.reprocess import reprocess, reprocess_fields
from vitriflow.facility.session_form import BadForm
from vitriflow.web import words
from vitriflow.web.api import SessionKey, Word
from vitriflow.web.auth import CSRF_FIELD, needs
from vitriflow.web.lookup import Scene, find_scene
from vitriflow.web.problems import NotFound
from vitriflow.web.site import site_of
from vitriflow.web.table import SHOWN

Maker = Annotated[Caller, needs("session.reprocess")]
Named = Annotated[str, Query(max_length=64)]
router = APIRouter(include_in_schema=False)
_POINTS = 1500  # drawn of a pair of columns


@dataclass(frozen=True)
class Pair:
    """Medians of one quantity over the exposures that both processings measured."""

    name: str
    label: str
    unit: str
    first: str
    second: str
    change: str
    both: int


@router.get("/sessions/{key}/reprocess", dependencies=[needs("session.reprocess")])
def form_page(request: Request, key: SessionKey, base: Named = "") -> HTMLResponse:
    """The form of a new processing."""
    return _form(request, key, base, "", {}, {})


def _form(
    request: Request, key: str, base: str, name: str, answers: Mapping[str, str], wrong: Mapping[str, str]
) -> HTMLResponse:
    site = site_of(request)
    scene = site.read(lambda db: find_scene(site, db, key, base or None))
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
    base, name = sent.pop("base", "")[:64], sent.pop("name", "")[:65].strip()
    try:
        reprocess(site_of(request).catalog, caller, key, base, name, sent)
    except BadForm as error:
        return _form(request, key, base, name, sent, error.problems)
    except (BadParameter, BadTemplate) as error:
        return _form(request, key, base, name, sent, {"": str(error)})
    home = f"/sessions/{quote(key, safe='')}"
    return RedirectResponse(f"{home}/compare?first={quote(base)}&second={quote(name)}", 303)


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

    def work(db: OrmSession) -> tuple[Scene, Scene]:
        newest = find_scene(site, db, key, second or None)
        names = [one.name for one in newest.processings]
        other = first or (names[-1] if names else "")
        return find_scene(site, db, key, other or None), newest

    one, two = site.read(work)
    if one.processing is None or two.processing is None:
        raise NotFound("processing", "two to compare", "none yet", "Process the session first.")
    if quantity not in SHOWN:
        raise BadParameter("quantity", "one of " + ", ".join(SHOWN), repr(quantity)[:60])
    left, right = paired(one, two, quantity)
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
    }
    return site.render(request, "session_compare.html", values)


def paired(one: Scene, two: Scene, name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A quantity of the exposures that both processings measured, in the same order."""
    _, a, b = np.intersect1d(one.snapshot.ids, two.snapshot.ids, return_indices=True)
    left, right = one.snapshot.values[name][a], two.snapshot.values[name][b]
    both = np.isfinite(left) & np.isfinite(right)
    return left[both], right[both]


def pair_of(one: Scene, two: Scene, name: str) -> Pair:
    """A line of the table of medians."""
    left, right = paired(one, two, name)
    shown = words.QUANTITIES[name]
    if not len(left):
        return Pair(name, shown.label, shown.unit, words.DASH, words.DASH, words.DASH, 0)
    first, second, change = (float(np.median(v)) for v in (left, right, right - left))
    texts = [words.number(value, shown.digits) for value in (first, second, change)]
    return Pair(
        name, shown.label, shown.unit, texts[0], texts[1], ("+" if change > 0 else "") + texts[2], len(left)
    )


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Parameters that two processings were given differently: name, first, second."""
    names = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
    return [
        (name, str(old.get(name, "as in the template")), str(new.get(name, "as in the template")))
        for name in names
    ]


def plot_of(left: NDArray[np.float64], right: NDArray[np.float64]) -> dict[str, Any] | None:
    """Points of the paired plot in a square of 100, y downwards, and its range; None without any."""
    if not len(left):
        return None
    step = -(-len(left) // _POINTS)
    left, right = left[::step], right[::step]
    low, high = np.percentile(np.concatenate([left, right]), (0.5, 99.5))
    wide = (high - low) or abs(high) or 1.0
    low, high = low - 0.05 * wide, high + 0.05 * wide
    x, y = (np.clip(100 * (v - low) / (high - low), 0, 100) for v in (left, right))
    points = np.round(np.stack([x, 100 - y], axis=1), 2).tolist()
    return {"points": points, "low": float(low), "high": float(high)}
