#!/usr/bin/env bash
# One script to get started. `./run_all.sh help` lists the commands.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

VENV=.venv
PYTHON=$VENV/bin/python

say() { printf '%s\n' "$*"; }
fail() { printf 'run_all.sh: %s\n' "$*" >&2; exit 1; }

usage() {
    cat <<'TEXT'
./run_all.sh          install into .venv, run the quick start, show its table
./run_all.sh test     install, then run the fast tests     (further arguments go to pytest: ./run_all.sh test -k lora)
./run_all.sh slow     install, then run the slow tests too, half an hour of launchers included (-m "not engines" leaves them out)
./run_all.sh docs     install, then build the documentation into site/ and check its links
./run_all.sh install  install only
./run_all.sh help     this text
Every command can be repeated: an existing installation is kept, and finished runs are not repeated.
TEXT
}

install() {
    local python=${PYTHON_FOR_VENV:-python3}
    command -v "$python" >/dev/null || fail "no $python found; install Python 3.11 or newer"
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
        || fail "$("$python" --version) is too old; set PYTHON_FOR_VENV to Python 3.11 or newer"
    local stamp
    stamp=$(cat pyproject.toml constraints.txt | cksum)
    [ "$(cat $VENV/installed 2>/dev/null)" = "$stamp" ] && return
    say "Installing into $VENV (minutes the first time) ..."
    [ -x $PYTHON ] || "$python" -m venv $VENV || fail "cannot make $VENV; on Debian: apt-get install python3-venv"
    $PYTHON -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[offline,peft,qlora,galore,tensorboard,wandb,cluster,docs,dev]' \
        || fail "installation failed; read the lines above, then run the same command again"
    printf '%s\n' "$stamp" >$VENV/installed
}

quickstart() {
    say "Quick start: three toy tasks; LoRA, full fine-tuning and a frozen encoder, on MiniLM (a few minutes) ..."
    local failed="a run failed; see its reason above, its traceback is in outputs/quickstart/runs/"
    local common=(-m +sweep=quickstart out_dir=outputs/quickstart)
    local cores
    cores=$(nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 2)
    # Two processes with half of the cores each finish sooner than one with all: these models are small.
    export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(((cores + 1) / 2))}
    $PYTHON -m lora_bench "${common[@]}" task=qqp,stsb method=full progress=false &
    local other=$!
    trap "kill $other 2>/dev/null" EXIT  # also after Ctrl-C, which a process in the background ignores
    $PYTHON -m lora_bench "${common[@]}" method=lora,head_only || fail "$failed"
    $PYTHON -m lora_bench "${common[@]}" task=sst2 method=full || fail "$failed"
    wait $other || fail "$failed"
    trap - EXIT
    say ""
    $PYTHON -m lora_bench.report --runs outputs/quickstart || fail "the report failed"
    say "What to look for: LoRA, whose adapter has under one percent of the encoder's parameters, is far above the"
    say "frozen encoder (head_only) and near full fine-tuning; nothing passes the ceiling. One seed and short runs"
    say "are not enough for a claim."
}

# One worker per core, each with one thread: the models of the tests are too small for more.
tests() { OMP_NUM_THREADS=1 $PYTHON -m pytest -n auto --dist worksteal "$@"; }

# --strict: warnings, such as a broken link, are errors. Links to other hosts are not checked.
docs() {
    NO_MKDOCS_2_WARNING=1 $PYTHON -m mkdocs build --strict || fail "the documentation has an error; see above"
    say "Built: site/index.html"
}

command=${1:-all}
[ $# -gt 0 ] && shift
case $command in
    all) install; quickstart ;;
    test) install; tests -m "not slow" "$@" ;;
    slow) install; tests "$@" ;;
    docs) install; docs ;;
    install) install ;;
    help | -h | --help) usage ;;
    *) usage >&2; fail "unknown command '$command'" ;;
esac
