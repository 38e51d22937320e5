#!/usr/bin/env bash
# The figures of docs/detection.md, with the commands that stand there.
#
#   benches/figures.sh DIRECTORY [ASD]    writes its files to DIRECTORY; ASD is a folder with train.csv.gz, test.csv.gz, causes.csv
#
# Takes the binary that DASHLIGHT names, else target/debug/dashlight. CARS and HOURS make the believable fleet smaller.
set -euo pipefail
directory=${1:?"a directory to write to"}
asd=${2:-}
binary=$(realpath "${DASHLIGHT:-$(dirname "$0")/../target/debug/dashlight}")
[ -z "$asd" ] || asd=$(realpath "$asd")
mkdir -p "$directory"
cd "$directory"

echo "=== believable fleet, the model in the binary, ${CARS:-200} cars x ${HOURS:-24} h"
"$binary" simulate --csv - --cars "${CARS:-200}" --rate 1 --for "${HOURS:-24}h" --seed 2 --labels labels.csv \
    | "$binary" evaluate - --vus-window 0

echo "=== the original demo's fleet"
"$binary" simulate --faithful --csv normal.csv --cars 200 --rate 0.1 --for 2000s --faults 0 --seed 1
"$binary" train normal.csv --out original.onnx
for kind in tire shock drive_shaft overheating; do
    "$binary" simulate --faithful --only-fault $kind --csv $kind.csv --labels $kind-labels.csv \
        --cars 150 --rate 0.1 --for 1000s --seed 2
    "$binary" evaluate $kind.csv --model original.onnx --causes $kind-labels.csv | grep -E "false episodes|blame top-1|at 0.1%|^$kind"
done

[ -n "$asd" ] || exit 0
for rate in 0.02 1.5; do
    echo "=== ASD, thresholds for $rate episodes per server and day"
    "$binary" train "$asd/train.csv.gz" --out asd.onnx --false-episodes $rate
    "$binary" evaluate "$asd/test.csv.gz" --model asd.onnx --causes "$asd/causes.csv" | sed -n 1,18p
done
