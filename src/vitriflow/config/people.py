"""Sections about people: how they sign in, and where it's published who may log in to a microscope."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from vitriflow.config.sections import Section

_UnixName = Annotated[str, StringConstraints(pattern=r"^[@(]?[a-z_][a-z0-9_.-]{0,31}\)?$")]


class LdapSection(Section):
    """A directory (OpenLDAP, Active Directory, ...) that knows people and their passwords."""

    url: str = Field(
        pattern=r"^ldaps?://[^/\s]+/?$", description="ldaps://host[:port], or ldap:// with start_tls"
    )
    start_tls: bool = Field(default=False, description="turn ldap:// into an encrypted connection first")
    allow_plain: bool = Field(
        default=False, description="send passwords unencrypted; only for a directory on this very machine"
    )
    ca_file: Path | None = Field(default=None, description="certificates to trust; the system's without")
    check_certificate: bool = Field(default=True, description="no: anybody on the way can read passwords")
    timeout_s: float = Field(default=5.0, gt=0, le=60, description="time for each answer (s)")
    bind_dn_template: str | None = Field(
        default=None, description="DN of a person, with {login}: uid={login},ou=people,dc=example,dc=org"
    )
    bind_dn: str | None = Field(default=None, description="account that searches, where there's no template")
    bind_password_file: Path | None = Field(default=None, description="file with that account's password")
    base_dn: str | None = Field(default=None, description="where people are searched for")
    filter: str = Field(
        default="(uid={login})",
        description="search with {login}; Active Directory: (sAMAccountName={login})",
    )
    name_attribute: str = Field(default="cn", description="a person's name")
    mail_attribute: str = Field(default="mail", description="a person's e-mail address")
    unix_attribute: str = Field(default="uid", description="a person's account on machines; '' for none")
    group_attribute: str = Field(default="memberOf", description="groups in a person's entry")
    group_base_dn: str | None = Field(
        default=None, description="where groups are searched for, if a person's entry doesn't name them"
    )
    group_filter: str = Field(
        default="(|(member={dn})(uniqueMember={dn})(memberUid={login}))", description="search for groups"
    )
    roles: dict[str, Literal["administrator", "operator"]] = Field(
        default_factory=dict, description="role in the facility by DN of a group"
    )
    only_groups: tuple[str, ...] = Field(
        default=(), description="DNs of groups that may sign in; everybody in the directory without"
    )

    @model_validator(mode="after")
    def _fits(self) -> "LdapSection":
        if not self.url.startswith("ldaps:") and not (self.start_tls or self.allow_plain):
            raise ValueError("an encrypted connection: ldaps://, or start_tls = true")
        if self.bind_dn_template is None and self.base_dn is None:
            raise ValueError("bind_dn_template, or base_dn to search people below")
        if self.bind_dn_template is not None and "{login}" not in self.bind_dn_template:
            raise ValueError("{login} in bind_dn_template")
        if "{login}" not in self.filter:
            raise ValueError("{login} in filter")
        return self


class PeopleSection(Section):
    """How people sign in."""

    session_hours: float = Field(
        default=12.0, gt=0, le=24 * 30, description="a browser stays signed in for (h)"
    )
    token_days: float = Field(default=90.0, gt=0, le=366, description="default life of a new token (days)")
    ldap: LdapSection | None = Field(default=None, description="a directory; local accounts work beside it")


class LdapGroupSection(Section):
    """The group of a directory that holds who may log in to a microscope now."""

    url: str = Field(pattern=r"^ldaps?://[^/\s]+/?$", description="as in [people.ldap]")
    start_tls: bool = Field(default=False, description="as in [people.ldap]")
    allow_plain: bool = Field(default=False, description="as in [people.ldap]")
    ca_file: Path | None = Field(default=None, description="as in [people.ldap]")
    check_certificate: bool = Field(default=True, description="as in [people.ldap]")
    timeout_s: float = Field(default=5.0, gt=0, le=60, description="as in [people.ldap]")
    bind_dn: str = Field(description="account that may change the group")
    bind_password_file: Path = Field(description="file with its password")
    dn: str = Field(description="the group, with {microscope}: cn=vitriflow-{microscope},ou=groups,dc=...")
    attribute: Literal["memberUid", "member", "uniqueMember"] = Field(
        default="memberUid", description="memberUid for a posixGroup, member for a groupOfNames"
    )
    member_dn: str = Field(
        default="", description="DN of a member, with {unix_name}, where the attribute holds DNs"
    )
    keep: tuple[str, ...] = Field(
        default=(), description="members that always stay; a groupOfNames needs one at least"
    )

    @model_validator(mode="after")
    def _fits(self) -> "LdapGroupSection":
        if not self.url.startswith("ldaps:") and not (self.start_tls or self.allow_plain):
            raise ValueError("an encrypted connection: ldaps://, or start_tls = true")
        if self.attribute != "memberUid" and ("{unix_name}" not in self.member_dn or not self.keep):
            raise ValueError("member_dn with {unix_name}, and one member in keep")
        return self


class AccessSection(Section):
    """Where it's published who may log in to which microscope now; and access to folders."""

    pam_file: Path | None = Field(
        default=None,
        description="pam_access file, with {microscope}; written whenever somebody comes or goes",
    )
    always: tuple[_UnixName, ...] = Field(
        default=("root",), description="accounts that such a file always lets in; @group or (group) too"
    )
    ldap_group: LdapGroupSection | None = Field(
        default=None, description="group of a directory to keep in step"
    )
    acls: bool = Field(
        default=False, description="give the folders of sessions POSIX ACLs for their experiment's people"
    )
    staff_group: _UnixName | None = Field(
        default=None, description="group of accounts that may read all sessions' folders"
    )
