"""vitriflow airflow: what Airflow needs from here, and taking processing back from it."""

from typing import Annotated

import typer

from vitriflow.cli.options import ConfigOption, OutOption, configured, open_catalog
from vitriflow.cli.people import this_user
from vitriflow.errors import BadParameter

airflow_app = typer.Typer(
    help="Airflow conducts: its token, and taking processing back.", no_args_is_help=True
)
LOGIN = "airflow"


@airflow_app.command()
def token(
    days: Annotated[float, typer.Option(help="for how long it's good")] = 366.0,
    config: ConfigOption = None,
    out: OutOption = None,
) -> None:
    """Print a new token for Airflow, which may do nothing but conduct. It's shown this once.

    It belongs to a person 'airflow' (made here, without a password), an operator of the facility.
    """
    from sqlalchemy import select
    from sqlalchemy.orm import Session as OrmSession

    from vitriflow.catalog import Person, now
    from vitriflow.elogbook.audit import audit
    from vitriflow.elogbook.permissions import Role, Scope
    from vitriflow.elogbook.tokens import make_token

    def work(orm: OrmSession) -> str:
        person = orm.scalar(select(Person).where(Person.login == LOGIN))
        if person is None:
            person = Person(
                login=LOGIN, name="Apache Airflow", facility_role=str(Role.OPERATOR), created_at=now()
            )
            orm.add(person)
            orm.flush()
        secret, row = make_token(orm, person, "conduct", [Scope.CONDUCT], days)
        audit(orm, this_user(), "token.make", f"token {row.id} of {LOGIN}", {"scopes": row.scopes})
        return secret

    catalog = open_catalog(configured(config, out), create=True)
    try:
        typer.echo(catalog.write(work))
    finally:
        catalog.close()


@airflow_app.command("take-back")
def take_back(
    session: Annotated[str, typer.Argument(help="the session's name")],
    config: ConfigOption = None,
    out: OutOption = None,
) -> None:
    """Let vitriflow conduct a session's processing itself from now on, with or without Airflow."""
    from vitriflow.elogbook import find_session
    from vitriflow.facility.conduct import give_back

    catalog = open_catalog(configured(config, out))
    try:
        number = give_back(catalog, find_session(catalog, session).id)
    finally:
        catalog.close()
    if not number:
        raise BadParameter(
            f"session {session}",
            "one whose processing Airflow conducts",
            "one that vitriflow conducts itself",
        )
    typer.echo(f"vitriflow conducts {session} itself now.")
