#!/usr/bin/env bash
# Train a recipe on a GPU machine that has JAX but neither TensorFlow nor the images nor a network.
#
#   recipes/gpu.sh pack RECIPE DATA [QUALITY]         here: images and wheels into .gpu/
#   recipes/gpu.sh train RECIPE [SECONDS [OPTION...]] there: train; exit code 75 means: run me again
#   recipes/gpu.sh collect RECIPE                     there: what goes home, into $OUT or .gpu/out
#   recipes/gpu.sh restore FOLDER RUN                 here: a run folder for `bignas-zoo family RUN --data DATA`
#   recipes/gpu.sh bench [OPTION...]                  there: images/s of the supernet's forms
#
# Of recipes of photographs (photos_gpu) the finished family comes home, in photos_gpu.tar; RUN/family is to be given to `get`.
#
# RECIPE is a shipped recipe's name or a YAML file within the repository. What travels is the repository with
# .gpu/wheels and .gpu/data; .gpu/run-RECIPE has to stay on the GPU machine between calls of `train`, which
# calls `collect` at its end. PYTHON names the Python to use: here one with bignas-zoo installed, there one of
# version 3.12 (or GPU_PYTHON, set when packing); BIGNAS_GPU a folder in place of .gpu.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
work=${BIGNAS_GPU:-$PWD/.gpu}
out=${OUT:-$work/out}
export PYTHONSAFEPATH=1 # not the bignas_zoo of this folder, which lacks recipes/ and others (Python 3.11 and later)

fail() {
    echo "Error: $1" >&2
    exit 2
}

usage() {
    sed -n '2,/^set/s/^# \{0,1\}//p' "$0" | sed '$d' >&2
    exit 2
}

# stem RECIPE: the name under which its files lie in .gpu
stem() { basename "$1" .yaml; }

# Without an installation: the packages as setup.cfg maps them, and the wheels that are missing here.
environment() {
    rm -rf "$work/tree" && mkdir -p "$work/tree/bignas_zoo"
    local entry
    for entry in bignas_zoo/* export recipes hub_cards; do
        [ "$entry" = bignas_zoo/__pycache__ ] || ln -s "$PWD/$entry" "$work/tree/bignas_zoo/"
    done
    export PYTHONPATH="$work/tree:$work/site${PYTHONPATH:+:$PYTHONPATH}"
    export JAX_COMPILATION_CACHE_DIR="${JAX_COMPILATION_CACHE_DIR:-$work/compiled}"
    export PYTHONUNBUFFERED=1 KERAS_BACKEND=jax
    if ! "$python" -c 'import click, importlib.util as u, sys; sys.exit(not (u.find_spec("keras") and u.find_spec("yaml")))' 2>/dev/null; then
        compgen -G "$work/wheels/*.whl" >/dev/null || fail "Keras is missing, and so is $work/wheels. Run 'recipes/gpu.sh pack' where there is a network, and bring $work/wheels here."
        "$python" -m pip install --quiet --no-index --no-deps --upgrade --target "$work/site" "$work"/wheels/*.whl
    fi
}

# known RECIPE: stop with the project's own message if there is no such recipe
known() {
    "$python" - "$1" <<'END'
import sys

from bignas_zoo.errors import BigNASError
from bignas_zoo.recipes.recipe import find_recipe

try:
    find_recipe(sys.argv[1])
except BigNASError as error:
    print(f"Error: {error}", file=sys.stderr)
    sys.exit(error.exit_code)
END
}

# data_of STEM: the packed images, put together if they came in parts
data_of() {
    local file=$work/data/$1.npz
    if [ ! -f "$file" ] && [ -f "$file.sha256" ]; then
        cat "$file".part-* >"$file.new"
        (cd "$work/data" && sed "s/\$/.new/" "$1.npz.sha256" | sha256sum --check --quiet) >&2 ||
            fail "$file: not all of its parts are here, or one is damaged. Bring $file.part-* here again."
        mv "$file.new" "$file"
    fi
    [ -f "$file" ] || fail "$file: no such file. Run 'recipes/gpu.sh pack' where the images are, and bring $work/data here."
    echo "$file"
}

pack() {
    [ $# -ge 2 ] || usage
    local name version file part_bytes=40000000
    name=$(stem "$1")
    file=$work/data/$name.npz
    mkdir -p "$work/data"
    "$python" -m bignas_zoo.recipes.data.packed "$1" --data "$2" --output "$file" ${3:+--quality "$3"}
    rm -f "$file".part-* "$file.sha256"
    if [ "$(wc -c <"$file")" -gt $((part_bytes * 5 / 4)) ]; then
        (cd "$work/data" && sha256sum "$name.npz" >"$name.npz.sha256")
        split --bytes="$part_bytes" --numeric-suffixes "$file" "$file.part-"
        rm "$file"
    fi
    rm -rf "$work/wheels"
    for package in keras optree namex click platformdirs PyYAML typing_extensions; do
        version=$("$python" -c 'import importlib.metadata as m, sys; print(m.version(sys.argv[1]))' "$package")
        "$python" -m pip download --quiet --disable-pip-version-check --only-binary=:all: --no-deps \
            --python-version "${GPU_PYTHON:-3.12}" --dest "$work/wheels" "$package==$version"
    done
    du --apparent-size --block-size=MB "$work"/wheels "$work/data/$name".npz*
    echo "Next, on the GPU machine: recipes/gpu.sh train $1"
}

train() {
    [ $# -ge 1 ] || usage
    local recipe=$1 name limit=${2:-570} data status=0
    [[ $limit =~ ^[0-9]+$ ]] || fail "train: SECONDS is '$limit'; give a whole number, such as 570."
    name=$(stem "$recipe")
    shift $(($# < 2 ? $# : 2))
    mkdir -p "$work"
    environment
    known "$recipe"
    data=$(data_of "$name")
    case $name in # they choose their steps by the time; a minute is for what starts and ends
    photos*) set -- --minutes "$(((limit > 120 ? limit - 60 : 60) / 60))" "$@" ;;
    esac
    # SIGTERM lets the step in progress end and saves a checkpoint. The time spent up to here counts.
    timeout --foreground --preserve-status --signal=TERM --kill-after=25 "$((limit > SECONDS ? limit - SECONDS : 1))" \
        "$python" -m bignas_zoo.cli train "$recipe" --engine jax --data "$data" --output "$work/run-$name" "$@" &
    local runner=$!
    trap 'kill -TERM "$runner" 2>/dev/null || true' TERM INT
    wait "$runner" || status=$?
    while kill -0 "$runner" 2>/dev/null; do # a signal to this script ended the wait, and the run saves now
        status=0
        wait "$runner" || status=$?
    done
    trap - TERM INT
    tail -n 3 "$work/run-$name/metrics.jsonl" 2>/dev/null || true
    [ "$status" -ne 143 ] || status=75 # SIGTERM while Python was still starting
    case $status in
    0) collect "$recipe" || status=$? ;;
    75) collect "$recipe" || true ;; # the run is what counts: without a checkpoint it begins anew
    esac
    [ "$status" -ne 137 ] || echo "Killed before it could save: a step took longer than 25 s. Give it more SECONDS." >&2
    [ "$status" -ne 75 ] || echo "Not finished: run the same command again (exit code 75)."
    return "$status"
}

collect() {
    [ $# -eq 1 ] || usage
    local name data
    name=$(stem "$1")
    mkdir -p "$work"
    environment
    known "$1"
    data=$(data_of "$name")
    if [[ $name == photos* ]] && [ -f "$work/run-$name/family/family.json" ]; then # nothing is left to do at home
        mkdir -p "$out"
        tar -C "$work/run-$name" -cf "$out/$name.tar" family report.html report.json
        return
    fi
    XLA_PYTHON_CLIENT_PREALLOCATE=false "$python" -m bignas_zoo.recipes.runs.transfer collect "$work/run-$name" "$out" \
        --data "$data"
}

restore() {
    [ $# -eq 2 ] || usage
    "$python" -m bignas_zoo.recipes.runs.transfer restore "$1" "$2"
}

bench() {
    mkdir -p "$work"
    environment
    # An empty cache of its own, so that the compile seconds are those of compiling.
    JAX_COMPILATION_CACHE_DIR=$(mktemp -d) "$python" benchmarks/train_step.py --engine jax --space bignas-imagenette \
        --forms --limit 170 "$@"
}

verb=${1:-}
case $verb in
pack | train | collect | restore | bench)
    shift
    "$verb" "$@"
    ;;
*) usage ;;
esac
