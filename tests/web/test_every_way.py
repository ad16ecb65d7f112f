"""Whatever a page can do, a program can do by REST, and somebody at the facility's machine by a command."""

from fastapi.routing import APIRoute
from typer.main import get_command

from vitriflow.cli.app import app as commands
from vitriflow.web import create_app
from vitriflow.web.auth import all_routes

EXPERIMENT = "/api/experiments/{experiment}"
SAMPLE = EXPERIMENT + "/samples/{sample}"
SESSION = "/api/sessions/{key}"
# What a page sends -> the same by REST, and by a command.
WAYS = {
    "/sign-in": ("POST /api/login", "login"),
    "/sign-out": ("DELETE /api/tokens/{token_id}", "people tokens"),
    "/me/tokens": ("POST /api/tokens", "login"),
    "/me/tokens/{token_id}/revoke": ("DELETE /api/tokens/{token_id}", "people tokens"),
    # One's own password only changes in a browser that's signed in: a token that leaks can't take an account over.
    "/me/password": ("POST /api/people/{login}/password", "people password"),
    "/people": ("POST /api/people", "people add"),
    "/people/{login}": ("PATCH /api/people/{login}", "people change"),
    "/people/{login}/password": ("POST /api/people/{login}/password", "people password"),
    "/experiments/{experiment}/people": ("PUT " + EXPERIMENT + "/people/{login}", "people join"),
    "/experiments/{experiment}/people/{login}/remove": (
        "DELETE " + EXPERIMENT + "/people/{login}",
        "people leave",
    ),
    "/sessions/{key}/access": ("PUT " + SESSION + "/helpers/{login}", "people helper"),
    "/sessions/{key}/access/remove": ("DELETE " + SESSION + "/helpers/{login}", "people helper"),
    "/experiments": ("POST /api/experiments", "experiment add"),
    "/experiments/{experiment}": ("PATCH " + EXPERIMENT, "experiment edit"),
    "/experiments/{experiment}/boxes": ("POST " + EXPERIMENT + "/boxes", "box add"),
    "/experiments/{experiment}/grids/{grid}": ("PATCH " + EXPERIMENT + "/grids/{grid}", "box grid"),
    "/experiments/{experiment}/log": ("POST " + EXPERIMENT + "/log", "log write"),
    "/experiments/{experiment}/log/{entry}/strike": (
        "POST " + EXPERIMENT + "/log/{entry}/strike",
        "log strike",
    ),
    "/experiments/{experiment}/new-sample": ("POST " + EXPERIMENT + "/samples", "sample add"),
    "/experiments/{experiment}/samples/{sample}": ("PATCH " + SAMPLE, "sample edit"),
    "/experiments/{experiment}/samples/{sample}/clone": ("POST " + SAMPLE + "/clone", "sample clone"),
    "/experiments/{experiment}/samples/{sample}/activate": (
        "POST " + SAMPLE + "/activate",
        "sample activate",
    ),
    "/sessions/{key}/pause": ("POST " + SESSION + "/pause", "pause"),
    "/sessions/{key}/resume": ("POST " + SESSION + "/resume", "resume"),
    "/sessions/{key}/stop": ("POST " + SESSION + "/stop", "stop"),
    "/sessions/{key}/reprocess": ("POST " + SESSION + "/processings", "reprocess"),
    "/alarms/{alarm}/acknowledge": ("POST /api/alarms/{alarm}/acknowledge", "alarms acknowledge"),
}
# What pages do by REST themselves, and what they show that isn't only theirs.
MORE = {
    "POST " + SESSION + "/marks": "mark",
    "POST " + SESSION + "/marks/undo": "mark",
    "POST " + SESSION + "/limits": "limits",
    "GET " + SESSION + "/limits": "limits",
    "POST " + SESSION + "/report": "report",
    "GET " + SESSION + "/compare": "compare",
    "GET " + SESSION + "/micrographs": "export",
    "GET " + SESSION + "/counts": "status",
    "GET " + SESSION + "/exposures/{exposure_id}": "explain",
    "GET " + SESSION + "/files": "ls",
    "PATCH " + EXPERIMENT + "/log/{entry}": "log edit",
    "GET " + EXPERIMENT + "/people": "people members",
    "GET " + EXPERIMENT + "/boxes": "box list",
    "GET /api/access/{microscope}": "access",
    "GET /api/alarms": "alarms list",
    "GET /api/audit": "audit",
    "GET /api/session-form": "sample form",
}


def routes(tmp_path) -> set[str]:
    made = create_app(f"sqlite:///{tmp_path / 'catalog.db'}")
    return {
        f"{method} {route.path}"
        for route in all_routes(made.routes)
        if isinstance(route, APIRoute)
        for method in route.methods or ()
    }


def known_commands() -> set[str]:
    found = set()
    for name, command in get_command(commands).commands.items():  # type: ignore[attr-defined]
        inner = getattr(command, "commands", None)
        found |= {name} if inner is None else {f"{name} {one}" for one in inner}
    return found


def test_each_deed_of_a_page_has_its_route_and_its_command(tmp_path) -> None:
    there = routes(tmp_path)
    pages = {one.removeprefix("POST ") for one in there if one.startswith("POST ") and "/api/" not in one}
    assert pages == set(WAYS)
    wanted = {rest for rest, _ in WAYS.values()} | set(MORE)
    assert wanted - there == set()
    assert ({command for _, command in WAYS.values()} | set(MORE.values())) - known_commands() == set()
