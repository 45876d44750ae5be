#!/usr/bin/env bash
# Replays the inputs under corpus/, lets each fuzz target look for more, and prints what it came to.
# BUILD: where the targets were built. What they find that is new goes to $BUILD/corpus, what breaks them to
# $BUILD/crashes; such an input then belongs into corpus/, for good.
# FUZZ_SECONDS: for each target (default: 60). FUZZ_TARGETS: their names (default: all).
set -euo pipefail
cd "$(dirname "$0")/../.."

seconds=${FUZZ_SECONDS:-60}
mkdir -p "$BUILD/crashes"
TMPDIR=$(mktemp -d -p /dev/shm 2>/dev/null || mktemp -d)
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT

# The names of all options, for the fuzzer to put together.
sed -n 's/^    {"\([a-z0-9-]*\)",.*/"--\1"/p' src/command/option_table.c >"$BUILD/options.dictionary"

# The last number that follows $1 in the log $2.
figure() {
    sed -n "s/.*$1 *\([0-9]*\).*/\1/p" "$2" | tail -n 1
}

# False: some input breaks the target $1.
fuzz() {
    local target=$BUILD/tests/fuzz_$1 log=$BUILD/$1.log dictionary=()
    local seeds=(tests/fuzz/corpus/"$1"/*)
    mkdir -p "$BUILD/corpus/$1"
    if ! "$target" -timeout=20 "${seeds[@]}" >"$log" 2>&1; then
        echo "$1: a known input breaks it: $(sed -n 's/^Running: //p' "$log" | tail -n 1); see $log"
        return 1
    fi
    [ "$1" != options ] || dictionary=(-dict="$BUILD/options.dictionary")
    if ! "$target" -max_total_time="$seconds" -timeout=20 -print_final_stats=1 "${dictionary[@]}" \
        -artifact_prefix="$BUILD/crashes/$1-" "$BUILD/corpus/$1" "tests/fuzz/corpus/$1" >"$log" 2>&1; then
        echo "$1: broken by $(sed -n 's/.*Test unit written to //p' "$log"); see $log"
        return 1
    fi
    printf '%-10s %12d %8d %7d %9d %8d\n' "$1" "$(figure 'number_of_executed_units:' "$log")" \
        "$(figure 'average_exec_per_sec:' "$log")" "$(figure ' cov:' "$log")" "$(figure ' ft:' "$log")" \
        "$(find "$BUILD/corpus/$1" -type f | wc -l)"
}

status=0
printf '%-10s %12s %8s %7s %9s %8s\n' target executions 'a second' edges features inputs
for target in ${FUZZ_TARGETS:-$(basename -a "$BUILD"/tests/fuzz_* | sed 's/^fuzz_//')}; do
    fuzz "$target" || status=1
done
exit "$status"
