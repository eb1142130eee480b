#!/usr/bin/env bash
# Makes the environment of this project, or the lock that it is made from.
#
#   tools/environment.sh install   .venv with what requirements.lock names; at once if up to date
#   tools/environment.sh lock      requirements.lock from the ranges in pyproject.toml
#
#   TORCH=auto|cpu|cuda|skip       which PyTorch; auto: CUDA where nvidia-smi finds a GPU, else CPU
#   PYTHON=python3.12              which Python (3.11 or newer); by default the first one found
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

LOCK=requirements.lock
CPU_INDEX=https://download.pytorch.org/whl/cpu
VENV=$PWD/.venv
TORCH=${TORCH:-auto}
torch_version=${TORCH_VERSION:-$(sed -n 's/^torch==//p' "$LOCK")}

say() { printf '%s\n' "$*" >&2; }
stop() { say "Error: $*"; exit 2; }

# -qq: pip is silent unless something goes wrong.
pip() { "$1/bin/python" -m pip --disable-pip-version-check -qq "${@:2}"; }

find_python() {
    local python incomplete=""
    for python in ${PYTHON:-python3.11 python3.12 python3.13 python3}; do
        "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue
        if "$python" -c 'import ensurepip, venv' 2>/dev/null; then
            printf '%s\n' "$python"
            return
        fi
        incomplete=$python
    done
    [ -z "$incomplete" ] || stop "$incomplete cannot make environments, its module venv is not" \
        "whole; on Debian and Ubuntu: apt install python3-venv."
    stop "No Python 3.11 or newer was found${PYTHON:+ as $PYTHON}; install one, or name it:" \
        "PYTHON=/path/to/python make install."
}

wanted_torch() {
    case "$TORCH" in
        cpu | cuda | skip) printf '%s\n' "$TORCH" ;;
        auto) if nvidia-smi -L >/dev/null 2>&1; then echo cuda; else echo cpu; fi ;;
        *) stop "TORCH=$TORCH is not known; choose TORCH=cpu, TORCH=cuda or TORCH=skip." ;;
    esac
}

install_torch() { # environment, kind
    case "$2" in
        cuda)
            say "Installing PyTorch $torch_version with CUDA: several GB" \
                "(TORCH=cpu make install takes the small build)."
            # ===, because == would also take a +cpu build that lies nearer.
            pip "$1" install "torch===$torch_version" || stop "PyTorch $torch_version could not" \
                "be installed; check the network, or choose: TORCH=cpu make install."
            ;;
        skip)
            "$1/bin/python" -c 'import torch' 2>/dev/null || stop "TORCH=skip, but there is no" \
                "PyTorch in $1; put one there with $1/bin/pip install torch, then run this again."
            ;;
        cpu)
            say "Installing PyTorch $torch_version for CPUs: about 200 MB."
            if [ "$(uname)" != Linux ]; then # elsewhere the default build is the CPU's
                pip "$1" install --no-deps "torch===$torch_version" && return
            else
                pip "$1" install --no-deps "torch==$torch_version+cpu" 2>/dev/null && return
                pip "$1" --timeout 30 --retries 2 install --no-deps --index-url "$CPU_INDEX" \
                    "torch==$torch_version+cpu" && return
            fi
            stop "No CPU build of PyTorch $torch_version could be installed, neither from where" \
                "pip looks by default nor from $CPU_INDEX; check the network, or choose:" \
                "TORCH=cuda make install (the default build, several GB), or TORCH=skip make" \
                "install (the PyTorch that you put into .venv yourself)."
            ;;
    esac
}

fingerprint() { cat "$LOCK" pyproject.toml tools/environment.sh | cksum; }

up_to_date() {
    local stamp=$VENV/.installed
    [ -f "$stamp" ] && belongs_here && "$VENV/bin/python" -c '' 2>/dev/null || return 1
    [ "$(sed -n 1p "$stamp")" = "$(fingerprint)" ] || return 1
    [ "$TORCH" = auto ] || [ "$TORCH" = "$(sed -n 2p "$stamp")" ]
}

# An environment that was copied or moved still points to where it was made.
belongs_here() { grep -qF "$VENV" "$VENV/pyvenv.cfg" 2>/dev/null; }

install() {
    up_to_date && return
    local python kind
    kind=$(wanted_torch)
    if ! belongs_here || ! "$VENV/bin/python" -m pip --version >/dev/null 2>&1; then
        python=$(find_python)
        say "Making .venv with $("$python" --version)."
        "$python" -m venv --clear "$VENV"
    fi
    rm -f "$VENV/.installed"
    install_torch "$VENV" "$kind"
    say "Installing $(grep -c == "$LOCK") packages as locked: a few minutes, once."
    grep -v '^torch==' "$LOCK" | pip "$VENV" install -r /dev/stdin
    pip "$VENV" install --no-deps --no-build-isolation --editable .
    { fingerprint; echo "$kind"; } >"$VENV/.installed"
    say "Ready. To have screen in your shell: source .venv/bin/activate"
}

lock() {
    local python scratch
    python=$(find_python)
    "$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' ||
        stop "The lock is made with Python 3.11; name one: PYTHON=/path/to/python3.11 make lock."
    scratch=$(mktemp -d)
    trap "rm -rf '$scratch'" EXIT
    "$python" -m venv "$scratch"
    pip "$scratch" uninstall --yes setuptools # so that it is resolved like everything else
    install_torch "$scratch" cpu
    say "Resolving: a few minutes."
    pip "$scratch" install --dry-run --report "$scratch/report.json" ".[dev]"
    "$python" - "$scratch/report.json" "$torch_version" >"$scratch/lock" <<'PYTHON'
import json
import re
import sys

with open(sys.argv[1]) as file:
    found = [item["metadata"] for item in json.load(file)["install"]]
versions = {re.sub(r"[-_.]+", "-", m["name"]).lower(): m["version"] for m in found}
versions = {"torch": sys.argv[2]} | versions
del versions["dielectric-screen"]
gpu = [name for name in versions if re.match(r"(nvidia|cuda)-|triton$", name)]
local = [name for name, version in versions.items() if "+" in version]
if gpu or local:
    sys.exit(f"Error: these do not belong into the lock: {', '.join(gpu + local)}.")
print("# Exact versions of everything, tests and checks included (Python 3.11); `make lock` writes it.")
print("# Which build of torch is a question for tools/environment.sh, which installs it first.")
for name, version in sorted(versions.items()):
    print(f"{name}=={version}")
PYTHON
    cp "$scratch/lock" "$LOCK"
    say "$LOCK names $(grep -c == "$LOCK") packages."
}

case "${1:-}" in
    install | lock) "$1" ;;
    *) stop "say what to do: tools/environment.sh install, or tools/environment.sh lock." ;;
esac
