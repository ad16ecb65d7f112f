"""Make the offline bundle: every wheel that vitriflow needs, checksums and an install script, in one folder.

``make bundle`` runs it where there's a package registry; ``make bundle-check`` installs from the folder with
no registry at all, as a facility without internet does.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SUMS = "SHA256SUMS"
INSTALL = """\
#!/bin/sh
# Installs vitriflow from this folder alone: nothing is asked of any network.
#   sh install.sh [FOLDER] [PYTHON]     FOLDER is the environment that's made (default: ./vitriflow-env)
set -eu
here=$(cd "$(dirname "$0")" && pwd)
target=${1:-vitriflow-env}
python=${2:-python3}
if [ -e "$target" ]; then
  echo "vitriflow: $target is there already; name another folder, or remove it." >&2
  exit 2
fi
cd "$here"
sha256sum --check --quiet SHA256SUMS || {
  echo "vitriflow: the bundle isn't as it was made: copy it again." >&2
  exit 2
}
cd - >/dev/null
"$python" - "$here/PYTHON" <<'END' || exit 2
import pathlib, platform, sys
made_for = pathlib.Path(sys.argv[1]).read_text().split()
here = [f"{sys.version_info[0]}.{sys.version_info[1]}", platform.system(), platform.machine()]
if here != made_for:
    sys.exit(f"vitriflow: this bundle is for Python {' '.join(made_for)}; this is {' '.join(here)}. "
             "Name another Python as the second argument, or make a bundle with this one.")
END
"$python" -m venv "$target"
PIP_NO_INDEX=1 PIP_CONFIG_FILE=/dev/null "$target/bin/python" -m pip install --quiet --disable-pip-version-check \\
  --no-index --find-links "$here/wheels" --constraint "$here/constraints.txt" WANTED
"$target/bin/WANTED" --version
echo "Installed into $target. Next: $target/bin/WANTED init && $target/bin/WANTED doctor"
"""
# A small movie, to see that what was installed also works
MOVIE = """
import numpy as np
from vitriflow.formats import MrcWriter
frames = np.random.default_rng(1).poisson(5, (4, 256, 256)).astype(np.float32)
frames += np.linspace(0, 9, 256, dtype=np.float32)
with MrcWriter("movie.mrcs", (256, 256), np.float32, 1.0, 4) as writer:
    for frame in frames:
        writer.write(frame)
"""


def run(*words: str, **more: object) -> None:
    """Run a command; its failure ends this script with its own message."""
    done = subprocess.run(words, check=False, **more)  # type: ignore[call-overload]
    if done.returncode:
        sys.exit(f"bundle: {' '.join(words[:6])} ... ended with {done.returncode}")


def build(out: Path, project: Path, constraints: Path, wanted: str) -> None:
    """Write the bundle of a project into a folder that isn't there yet, or is a bundle."""
    if out.exists() and not (out / SUMS).is_file():
        sys.exit(f"bundle: {out} is there and is no bundle; name another folder with --out.")
    out.parent.mkdir(parents=True, exist_ok=True)
    # Nothing half-done under the final name
    with tempfile.TemporaryDirectory(prefix=".bundle-", dir=out.parent) as scratch:
        made = Path(scratch) / out.name
        wheels = made / "wheels"
        wheels.mkdir(parents=True)
        pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"]
        run(*pip, "--wheel-dir", str(wheels), "--constraint", str(constraints), str(project))
        shutil.copyfile(constraints, made / "constraints.txt")
        write_frame(made, wanted)
        if out.exists():
            shutil.rmtree(out)
        made.replace(out)


def write_frame(made: Path, wanted: str) -> None:
    """Everything but the wheels: install script, what Python it's for, and the checksums of all."""
    import platform

    script = made / "install.sh"
    script.write_text(INSTALL.replace("WANTED", wanted), encoding="utf-8")
    script.chmod(0o755)
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    (made / "PYTHON").write_text(f"{version} {platform.system()} {platform.machine()}\n", encoding="utf-8")
    write_sums(made)


def write_sums(made: Path) -> None:
    """``SHA256SUMS`` of every file, as ``sha256sum --check`` reads it."""
    files = sorted(path for path in made.rglob("*") if path.is_file() and path.name != SUMS)
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(made)}\n" for path in files]
    (made / SUMS).write_text("".join(lines), encoding="utf-8")


def check(bundle: Path, wanted: str) -> None:
    """Install from the bundle with no index and no way to one, and start what was installed."""
    with tempfile.TemporaryDirectory(prefix="bundle-check-") as scratch:
        place = Path(scratch) / "env"
        nowhere = "http://127.0.0.1:9"  # a port that nobody listens on: whoever asks a network fails
        env = {"PATH": os.environ["PATH"], "HOME": scratch, "LANG": "C.UTF-8"}
        env |= dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), nowhere)
        run("sh", str(bundle / "install.sh"), str(place), sys.executable, env=env, cwd=scratch)
        program = str(place / "bin" / wanted)
        run(program, "--version", env=env, cwd=scratch)
        if wanted == "vitriflow":
            run(program, "step", "list", env=env, cwd=scratch, stdout=subprocess.DEVNULL)
            python = str(place / "bin" / "python")
            run(python, "-c", MOVIE, env=env, cwd=scratch)
            words = ("motion.native", "movie.mrcs", "--out", "done", "--set", "patches_x=0", "--threads", "2")
            run(program, "step", "run", *words, env=env, cwd=scratch)
            code = "import pathlib, vitriflow.web as w; p = pathlib.Path(w.__file__).parent / 'static'"
            code += "; assert list(p.glob('*.js')), 'the pages lack their scripts'"
            run(python, "-c", code, env=env, cwd=scratch)
    print(f"{bundle} installs without any registry.")  # noqa: T201


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=ROOT / "dist" / "bundle", help="folder of the bundle")
    parser.add_argument("--check", action="store_true", help="install from the bundle instead of making it")
    parser.add_argument("--project", type=Path, default=ROOT, help="what is bundled")
    parser.add_argument("--constraints", type=Path, default=ROOT / "constraints.txt", help="versions")
    parser.add_argument("--wanted", default="vitriflow", help="name of the package and of its command")
    asked = parser.parse_args()
    if asked.check:
        check(asked.out.absolute(), asked.wanted)
    else:
        build(asked.out.absolute(), asked.project.absolute(), asked.constraints.absolute(), asked.wanted)
        size = sum(path.stat().st_size for path in asked.out.rglob("*") if path.is_file())
        print(f"{asked.out}: {size / 1024**2:.0f} MiB. Copy it, then: sh install.sh")  # noqa: T201


if __name__ == "__main__":
    main()
