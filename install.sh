#!/bin/sh
# Makes .venv hold what requirements.lock names, and hsl itself. `make` calls this; `sh install.sh` does the same.
# It takes uv where that is on the PATH, else pip. PYTHON=python3.12 chooses the interpreter, UV= does without uv.
# A whole environment is kept, and brought up to date where the lock is newer; anything else is made anew.
set -eu
cd "$(dirname -- "$0")"
# What a user has set for other projects. Each of these would break the installation or put it elsewhere.
unset PYTHONPATH PYTHONHOME PIP_TARGET PIP_PREFIX PIP_REQUIRE_HASHES UV_REQUIRE_HASHES UV_CONSTRAINT UV_OVERRIDE
export PIP_USER=0 PIP_CONSTRAINT=/dev/null PIP_DISABLE_PIP_VERSION_CHECK=1

say() { printf '%s\n' "hsl: $*"; }

fail() {
  say "$*" >&2
  exit 1
}

describe() { # version and path of an interpreter (of the one below, if it is an environment's), or nothing
  "$1" -c 'import os, sys
base = getattr(sys, "_base_executable", "")
path = base if base and os.path.exists(base) else os.path.realpath(sys.executable)
print("%d.%d.%d %s" % (sys.version_info[:3] + (path,)))' 2>/dev/null || true
}

is_supported() {
  case $1 in 3.11.* | 3.12.* | 3.13.*) ;; *) return 1 ;; esac
}

other_python() { # the way out where PYTHON does not serve
  for name in python3.13 python3.12 python3.11 python3; do
    if is_supported "$(describe "$name")"; then
      echo "Choose another: make demo PYTHON=$name"
      return
    fi
  done
  echo "None of these is on the PATH. Install one (Debian, Ubuntu: apt-get install python3 python3-venv;" \
    "uv: uv python install 3.12) and name it or its path: make demo PYTHON=python3.12"
}

choose_python() { # sets version and python
  local wanted found rule
  wanted=${PYTHON:-python3} rule='`PYTHON` should be Python 3.11, 3.12 or 3.13.'
  found=$(describe "$wanted")
  [ -n "$found" ] || fail "$rule Found \`$wanted\`, which is not there or does not start. $(other_python)"
  version=${found%% *} python=${found#* }
  is_supported "$version" || fail "$rule Found \`$wanted\` = Python $version. $(other_python)"
}

packages_key() { printf '%s\n' "$(cksum <requirements.lock) $(cksum <pyproject.toml)"; }

stamped() { sed -n "$1p" $stamp 2>/dev/null || true; } # a line of the stamp: Python, packages, place

free() { df -Pk "$1" 2>/dev/null | awk 'NR == 2 { printf "%.1f GB", $4 / 1048576 }'; }

make_environment() {
  [ -w . ] || fail "\`$PWD\` cannot be written by $(id -un). Clone into a folder of your own."
  "$python" -m venv --without-pip "$@" "$(realpath .venv)" || # which may be a link to a larger disk
    fail "\`.venv\` cannot be made, for the reason above. If another user made it, remove it as that user."
}

install_with_uv() {
  local cache
  cache=$("$uv" cache dir) || return 1
  if ! mkdir -p "$cache" 2>/dev/null || [ ! -w "$cache" ]; then # a home that cannot be written
    export UV_CACHE_DIR="$PWD/.venv/.cache"
  fi
  "$uv" pip sync --require-hashes --python .venv/bin/python requirements.lock || return 1
  say "3/4 hsl itself"
  "$uv" pip install --no-deps --python .venv/bin/python --editable . || return 1
  rm -rf .venv/.cache
}

install_with_pip() {
  "$python" -c 'import ensurepip' 2>/dev/null || fail "\`$python\` lacks ensurepip, which puts pip into an environment." \
    "Debian, Ubuntu: apt-get install python${version%.*}-venv. Or install uv, which needs none."
  .venv/bin/python -m ensurepip --upgrade --default-pip >/dev/null || return 1
  .venv/bin/python -m pip install --no-compile --no-deps --require-hashes --requirement requirements.lock || return 1
  say "3/4 hsl itself"
  .venv/bin/python -m pip install --no-compile --no-deps --editable .
}

make_relocatable() { # commands find their Python beside them: the folder may be moved and have any name
  .venv/bin/python - <<'PYTHON'
import sys
from pathlib import Path

venv = Path(sys.prefix)
header = b"""#!/bin/sh
'''exec' "$(dirname -- "$(realpath -- "$0")")"/python "$0" "$@"
' '''
"""
for script in (venv / "bin").iterdir():
    lines = [] if script.is_symlink() or not script.is_file() else script.read_bytes().splitlines(keepends=True)
    if lines[:1] == [b"#!/bin/sh\n"] and lines[1].startswith(b"'''exec'"):
        script.write_bytes(header + b"".join(lines[3:]))
    elif lines and lines[0].startswith(b"#!") and b"/bin/python" in lines[0]:
        script.write_bytes(header + b"".join(lines[1:]))
source = str(Path("src").resolve()) if Path(".venv").is_symlink() else "../../../../src"
for path in venv.glob("lib/python*/site-packages/_editable_impl_hsl.pth"):
    path.write_text(f"{source}\n", encoding="utf-8")
PYTHON
}

compile_bytecode() { # of what hsl may import, which then takes a third of the time; never a reason to fail
  say "4/4 bytecode, the last minute or two"
  .venv/bin/python -m compileall -qq -j 0 -x '/tests/|/transformers/models/' .venv/lib >/dev/null 2>&1 ||
    say "Some files could not be compiled ahead (libraries bring a few for other Pythons); nothing depends on it."
}

stamp=.venv/.installed
uv=${UV-uv}
command -v "$uv" >/dev/null || uv=
interrupted() {
  say "Interrupted. The same command starts again." >&2
  exit "$1"
}
trap 'interrupted 130' INT
trap 'interrupted 143' TERM
trap 'interrupted 129' HUP
if command -v flock >/dev/null; then # two installations at once would spoil each other
  exec 9<requirements.lock
  flock -n 9 || { say "Another installation is at work here; waiting for it." && flock 9; }
fi

there=$(describe .venv/bin/python)
version=${there%% *} python=${there#* }
clear=
if [ -z "$there" ] || [ "$(stamped 1)" != "${version%.*}" ]; then
  clear=--clear
  if [ -e .venv ]; then say "\`.venv\` is not whole (an interrupted installation, another Python): made anew."; fi
  choose_python
elif [ -n "${PYTHON:-}" ]; then
  choose_python
  if [ "$(stamped 1)" != "${version%.*}" ]; then
    clear=--clear
    say "\`.venv\` is of Python $(stamped 1): made anew."
  fi
fi
place=$(pwd -P)
if [ -z "$clear" ] && [ "$(stamped 2)" = "$(packages_key)" ]; then
  if [ "$(stamped 3)" = "$place" ]; then exit; fi
  say "The folder was moved: the paths in \`.venv\` are written anew."
  make_environment
  make_relocatable
else
  start=$(date +%s)
  say "1/4 environment: .venv with Python $version ($python)"
  if [ -z "$clear" ]; then rm -f $stamp; fi
  make_environment $clear
  say "2/4 packages: $(grep -o '^[^ #]*==' requirements.lock | sort -u | wc -l), with ${uv:-pip}. They are 3 GB to download and 7 GB on disk" \
    "($(free .) are free)."
  if [ -n "$uv" ]; then install_with_uv; else install_with_pip; fi ||
    fail "The installation stopped for the reason above. $(free .) are free here, where it takes 7 GB, and" \
      "$(free "${TMPDIR:-/tmp}") in ${TMPDIR:-/tmp}, where pip needs up to 3 GB (another place: TMPDIR=FOLDER)." \
      "Once the cause is gone, start the same command again."
  make_relocatable
  compile_bytecode
  say "Installed in $(($(date +%s) - start)) s. \`. .venv/bin/activate\` makes \`hsl\` a command."
fi
printf '%s\n' "${version%.*}" "$(packages_key)" "$place" >$stamp
