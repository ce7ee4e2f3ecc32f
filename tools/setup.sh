#!/bin/sh
# Prepares everything that trainledger needs inside its own folder: a Python environment in .venv and the npm packages
# in node_modules (compiler, local chain, contract libraries). Running it again does only what is out of date.
#
#   sh tools/setup.sh              everything
#   sh tools/setup.sh tools        looks only whether Python, Node and npm are there
#   sh tools/setup.sh python       the Python environment
#   sh tools/setup.sh node         the npm packages; may run beside `python`
#   sh tools/setup.sh contracts    compiles the contracts, which needs both
set -eu
cd "$(dirname "$0")/.."

say() { printf '%s\n' "set-up: $*"; }
fail() { printf '%s\n' "set-up: $*" >&2; exit 6; }

find_python() {
    for candidate in ${PYTHON:-} python3.11 python3.12 python3.13 python3; do
        if command -v "$candidate" >/dev/null 2>&1 &&
            "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null; then
            command -v "$candidate"
            return 0
        fi
    done
    return 1
}

digest() { cat "$@" | cksum | tr ' ' '-'; }

check_python() {
    python=$(find_python) || fail "Python 3.11, 3.12 or 3.13 is needed and none was found. Install one, or name it: make PYTHON=/path/to/python3.11"
}

check_node() {
    command -v node >/dev/null 2>&1 || fail "Node.js 20 or newer is needed (it runs the Solidity compiler and the local chain) and no 'node' was found. Install it and run this again."
    node -e 'process.exit(Number(process.versions.node.split(".")[0]) >= 20 ? 0 : 1)' ||
        fail "Node.js 20 or newer is needed, and this is $(node --version). Install a newer one and run this again."
    command -v npm >/dev/null 2>&1 || fail "npm is needed and was not found. It usually comes with Node.js."
}

set_up_python() {
    want=$(digest requirements.lock pyproject.toml)
    [ "$(cat .venv/.trainledger-ready 2>/dev/null || true)" != "$want" ] || return 0
    if [ ! -x .venv/bin/python ]; then
        say "creating .venv with $("$python" --version)"
        "$python" -m venv .venv || fail "could not create .venv with $python. On Debian and Ubuntu: install the package python3-venv."
    fi
    say "installing the Python packages of requirements.lock (PyTorch among them: this takes a while the first time)"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement requirements.lock
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
    printf '%s\n' "$want" >.venv/.trainledger-ready
}

set_up_node() {
    want=$(digest package-lock.json)
    if [ "$(cat node_modules/.trainledger-ready 2>/dev/null || true)" != "$want" ]; then
        say "installing the npm packages of package-lock.json"
        npm ci --no-fund --no-audit --loglevel=error
        printf '%s\n' "$want" >node_modules/.trainledger-ready
    fi
    link_forge
}

# The package's own script starts forge and ends with status 0 whatever forge says: failing tests would pass.
link_forge() {
    for binary in node_modules/@foundry-rs/forge-*/bin/forge; do
        [ ! -x "$binary" ] || ln -sf "../${binary#node_modules/}" node_modules/.bin/forge
    done
}

compile_contracts() {
    .venv/bin/python -c 'import sys; from ledger.compile import compile_contracts; compile_contracts()' ||
        fail "the contracts did not compile; see above."
    say "ready"
}

case "${1:-all}" in
    all) check_python; check_node; set_up_python; set_up_node; compile_contracts ;;
    tools) check_python; check_node ;;
    python) check_python; set_up_python ;;
    node) check_node; set_up_node ;;
    contracts) compile_contracts ;;
    *) fail "there is no part '$1'; the parts are tools, python, node and contracts." ;;
esac
