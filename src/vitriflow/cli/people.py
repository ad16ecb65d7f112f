"""vitriflow people, access, audit: who may do what, from the facility's own machine."""

import getpass
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.table import Table

from vitriflow.cli.options import ConfigOption, OutOption, configured, open_catalog
from vitriflow.errors import BadParameter

if TYPE_CHECKING:
    from sqlalchemy.orm import Session as OrmSession

    from vitriflow.catalog import Catalog
    from vitriflow.elogbook.permissions import Caller

people_app = typer.Typer(
    no_args_is_help=True,
    help="People of the facility: add, change, let into experiments.",
    pretty_exceptions_enable=False,
)
LoginArgument = Annotated[str, typer.Argument(help="somebody's login")]
ExperimentArgument = Annotated[str, typer.Argument(help="an experiment's name")]
JsonOption = Annotated[bool, typer.Option("--json", help="print JSON")]


def this_user() -> "Caller":
    """Whoever runs commands on the facility's machine: they can read and write the catalog anyway."""
    from vitriflow.elogbook.permissions import ALL_SCOPES, Caller, Role

    return Caller(
        "command", login=f"{_account()}@command", facility_role=Role.ADMINISTRATOR, scopes=ALL_SCOPES
    )


def _account() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


@people_app.command()
def add(
    login: LoginArgument,
    name: Annotated[str, typer.Option(help="their name")] = "",
    email: Annotated[str, typer.Option(help="their e-mail address")] = "",
    administrator: Annotated[bool, typer.Option("--administrator", help="may do everything")] = False,
    operator: Annotated[bool, typer.Option("--operator", help="runs all microscopes")] = False,
    unix_name: Annotated[str | None, typer.Option(help="their account on the facility's machines")] = None,
    ldap: Annotated[bool, typer.Option("--ldap", help="their password is the directory's")] = False,
    generate: Annotated[bool, typer.Option("--generate", help="make a password and print it")] = False,
    config: ConfigOption = None,
    out: OutOption = None,
) -> None:
    """Add somebody. From the first one on, the pages ask everybody to sign in.

    Asks for a password twice; with --generate, or where there's no terminal, makes one and prints it.
    """
    from vitriflow.elogbook.audit import audit
    from vitriflow.elogbook.people import add_person
    from vitriflow.elogbook.permissions import Role
    from vitriflow.elogbook.tokens import hash_password

    if administrator and operator:
        raise BadParameter(
            "role", "--administrator or --operator", "both", "An administrator may do all of it."
        )
    role = Role.ADMINISTRATOR if administrator else Role.OPERATOR if operator else ""
    password = "" if ldap else _password(generate)
    hashed = hash_password(password) if password else None

    def work(orm: "OrmSession") -> str:
        person = add_person(
            orm,
            login,
            name=name,
            email=email,
            facility_role=str(role),
            password_hash=hashed,
            source="ldap" if ldap else "local",
            unix_name=unix_name,
        )
        audit(orm, this_user(), "people.add", f"person {person.login}", {"role": role})
        return person.login

    made = write(config, out, work)
    typer.echo(f"Added {made}{f', {role} of the facility' if role else ''}.", err=True)


def _password(generate: bool) -> str:
    from vitriflow.elogbook.tokens import new_password

    if generate or not sys.stdin.isatty():
        made = new_password()
        typer.echo(f"Password: {made}")
        return made
    return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True))


@people_app.command("list")
def list_all(json: JsonOption = False, config: ConfigOption = None, out: OutOption = None) -> None:
    """Show everybody."""
    from vitriflow.elogbook.people import list_people

    names = ("login", "name", "facility_role", "unix_name", "source", "active", "email", "last_sign_in_at")
    catalog = opened(config, out)
    try:
        rows = catalog.read(
            lambda orm: [{name: getattr(one, name) for name in names} for one in list_people(orm)]
        )
    finally:
        catalog.close()
    show(rows, json)


@people_app.command()
def change(
    login: LoginArgument,
    name: Annotated[str | None, typer.Option(help="their name")] = None,
    email: Annotated[str | None, typer.Option(help="their e-mail address")] = None,
    role: Annotated[str | None, typer.Option(help="administrator, operator or none")] = None,
    unix_name: Annotated[str | None, typer.Option(help="their account; none to take it away")] = None,
    active: Annotated[
        bool | None, typer.Option("--active/--inactive", help="whether they may come in")
    ] = None,
    config: ConfigOption = None,
    out: OutOption = None,
) -> None:
    """Change somebody."""
    from vitriflow.elogbook.audit import audit
    from vitriflow.elogbook.people import find_person, set_person

    asked: dict[str, Any] = {
        "name": name,
        "email": email,
        "facility_role": role,
        "unix_name": unix_name,
        "active": active,
    }
    values = {key: value for key, value in asked.items() if value is not None}
    values |= {key: "" for key in ("facility_role", "unix_name") if values.get(key) == "none"}
    if not values:
        raise BadParameter(
            "people change", "something to change", "nothing", "See 'vitriflow people change --help'."
        )

    def work(orm: "OrmSession") -> None:
        person = find_person(orm, login)
        changed = set_person(orm, person, values)
        audit(orm, this_user(), "people.change", f"person {person.login}", changed)

    write(config, out, work)


@people_app.command()
def password(
    login: LoginArgument,
    generate: Annotated[bool, typer.Option("--generate", help="make one and print it")] = False,
    config: ConfigOption = None,
    out: OutOption = None,
) -> None:
    """Give somebody a new password; they are signed out everywhere."""
    from vitriflow.elogbook.people import find_person, replace_password
    from vitriflow.elogbook.tokens import hash_password

    hashed = hash_password(_password(generate))

    def work(orm: "OrmSession") -> None:
        replace_password(orm, this_user(), find_person(orm, login), hashed)

    write(config, out, work)


@people_app.command()
def tokens(
    login: LoginArgument,
    revoke: Annotated[int | None, typer.Option("--revoke", metavar="NUMBER", help="end this one")] = None,
    json: JsonOption = False,
    config: ConfigOption = None,
    out: OutOption = None,
) -> None:
    """Show somebody's API tokens (never their secrets), or end one. New ones: 'vitriflow login', or their page."""
    from vitriflow.elogbook.audit import audit
    from vitriflow.elogbook.people import find_person
    from vitriflow.elogbook.tokens import list_tokens, revoke_token

    names = ("id", "name", "scopes", "created_at", "expires_at", "used_at")

    def work(orm: Any) -> list[dict[str, Any]]:
        person = find_person(orm, login)
        if revoke is not None:
            row = revoke_token(orm, person.id, revoke)
            if row is None:
                raise BadParameter("--revoke", f"the number of a token of {login}", str(revoke))
            audit(orm, this_user(), "token.revoke", f"person {person.login}", {"name": row.name})
        return [{name: getattr(one, name) for name in names} for one in list_tokens(orm, person.id)]

    show(write(config, out, work), json)


def access(
    microscope: Annotated[str | None, typer.Option("--microscope", "-m", help="only this one")] = None,
    write_pam: Annotated[
        Path | None,
        typer.Option("--write-pam", metavar="FILE", help="write a pam_access file (one microscope)"),
    ] = None,
    publish: Annotated[
        bool, typer.Option("--publish", help="do all that [access] in facility.toml asks for, once")
    ] = False,
    acls: Annotated[
        bool, typer.Option("--apply-acls", help="give session folders lists of their experiment's people")
    ] = False,
    everything: Annotated[
        bool, typer.Option("--everything", help="with --apply-acls: look at every single file again")
    ] = False,
    json: JsonOption = False,
    config: ConfigOption = None,
    out: OutOption = None,
) -> None:
    """Show who may log in to which microscope now, and publish it. Exits with 1 when something couldn't be."""
    from vitriflow.facility import access as room

    settled = configured(config, out)
    catalog = open_catalog(settled)
    problems: list[str] = []
    try:
        found = room.access_now(catalog, microscope)
        if write_pam is not None:
            if len(found) != 1:
                raise BadParameter(
                    "--write-pam", "one microscope", f"{len(found)}", "Name one with --microscope."
                )
            room.write_pam(write_pam, found[0], settled.access.always)
        if publish:
            problems += room.publish_access(settled, catalog, everything=everything).problems
        if acls:
            done = room.apply_folder_access(
                settled.storage.root, catalog, settled.access, everything=everything
            )
            problems += done.problems
            typer.echo(f"{done.folders} session folders changed.", err=True)
    finally:
        catalog.close()
    rows = [
        {"microscope": one.microscope, "account": entry.unix_name, "login": entry.login, "why": entry.why}
        for one in found
        for entry in one.people
    ]
    show(rows, json)
    tell(problems)
    if problems:
        raise typer.Exit(1)


def audit(
    login: Annotated[str, typer.Option(help="whose login begins so")] = "",
    action: Annotated[str, typer.Option(help="deeds whose name begins so")] = "",
    subject: Annotated[str, typer.Option(help="done to what begins so")] = "",
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="how many, newest first")] = 50,
    json: JsonOption = False,
    config: ConfigOption = None,
    out: OutOption = None,
) -> None:
    """Show who did what."""
    from vitriflow.elogbook.audit import list_audit

    names = ("id", "at", "login", "action", "subject", "details", "address")
    catalog = opened(config, out)
    try:
        rows = catalog.read(
            lambda orm: [
                {name: getattr(one, name) for name in names}
                for one in list_audit(orm, login=login, action=action, subject=subject, limit=limit)
            ]
        )
    finally:
        catalog.close()
    show(rows, json)


def opened(config: Path | None, out: Path | None) -> "Catalog":
    """The catalog, open."""
    return open_catalog(configured(config, out))


def write(config: Path | None, out: Path | None, work: Any) -> Any:
    """Do something to the catalog in one transaction."""
    catalog = open_catalog(configured(config, out), create=True)
    try:
        return catalog.write(work)
    finally:
        catalog.close()


def tell(problems: list[str]) -> None:
    """Print problems as errors are."""
    for problem in problems:
        typer.echo(problem, err=True)


def show(rows: list[dict[str, Any]], json: bool) -> None:
    """Print rows as a table or as JSON."""
    if json:
        sys.stdout.buffer.write(orjson.dumps(rows, option=orjson.OPT_INDENT_2 | orjson.OPT_UTC_Z) + b"\n")
        return
    console = Console()
    if not rows:
        console.print("Nobody, nothing.")
        return
    table = Table(*rows[0], box=None)
    for row in rows:
        table.add_row(*(_plain(value) for value in row.values()))
    console.print(table)


def _plain(value: Any) -> str:
    from rich.markup import escape

    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return escape(", ".join(f"{key} {inner}" for key, inner in value.items()))
    return escape(f"{value:%Y-%m-%d %H:%M:%S}" if hasattr(value, "strftime") else str(value))
