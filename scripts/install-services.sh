#!/bin/sh
# Installs the servers and programs that tests use as they are: PostgreSQL, Chromium, RELION,
# OpenLDAP, getfacl, Slurm, and Grid Engine.
# As root on Debian it installs what is missing; otherwise it says what is missing, and tests skip those parts.
set -u

missing=""
command -v chromium >/dev/null 2>&1 || missing="$missing chromium fonts-dejavu-core"
command -v relion_preprocess >/dev/null 2>&1 || missing="$missing relion ghostscript"
command -v b3sum >/dev/null 2>&1 || missing="$missing b3sum"
ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || missing="$missing postgresql"
command -v slapd >/dev/null 2>&1 || [ -x /usr/sbin/slapd ] || missing="$missing slapd"
command -v ldapadd >/dev/null 2>&1 || missing="$missing ldap-utils"
command -v getfacl >/dev/null 2>&1 || missing="$missing acl"
command -v openssl >/dev/null 2>&1 || missing="$missing openssl"
[ -x /usr/sbin/slurmctld ] && [ -x /usr/sbin/slurmd ] || missing="$missing slurm-wlm"
[ -x /usr/sbin/munged ] || missing="$missing munge"
[ -x /usr/sbin/sge_qmaster ] && [ -x /usr/sbin/sge_execd ] && command -v qsub >/dev/null 2>&1 ||
    missing="$missing gridengine-master gridengine-exec gridengine-client"
[ -z "$missing" ] && exit 0

if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "Not installed:$missing. Tests that need them are skipped; as root on Debian, 'make services' installs them."
    exit 0
fi
echo "Installing$missing ..."
export DEBIAN_FRONTEND=noninteractive
# A server started by the package would only be in the tests' way: they start their own.
if [ ! -e /usr/sbin/policy-rc.d ]; then
    printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d
    chmod +x /usr/sbin/policy-rc.d
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
fi
log=$(mktemp)
# shellcheck disable=SC2086
if ! { apt-get update -qq && apt-get install -y -qq --no-install-recommends $missing; } >"$log" 2>&1; then
    tail -n 20 "$log"
    echo "Could not install:$missing (the whole log: $log)."
    exit 1
fi
rm -f "$log"
