#!/bin/bash
# Everything that needs a GPU, on a machine that has one and otherwise only Deno, Bun or both on PATH:
#   tests/gpu/all.sh [FOLDER]     FOLDER (../shared) holds golden/, golden-real/ and models/; what is not there is said
# No network and no node_modules: nothing on this path imports a package. Vitest is tests/gpu/mini_vitest.ts, by an import
# map (Deno) or a tsconfig (Bun); golden-real has its ids in the case, so no tokenizer is needed. To carry a runtime to such a
# machine, take one file: tests/tools/node_modules/deno/deno or tests/tools/node_modules/bun/bin/bun.exe (as `bun`).
# One line a part and runtime; a part that fails shows its last lines; everything lies under $OUT (a temporary folder).
# Parts: ops checkpointing golden real curve; PARTS="ops real" takes some of them; PARTS=sanitizer, which is none of them, runs what the CUDA
# toolkit's compute-sanitizer finishes in minutes, on Deno. The exit status is the number of parts that failed.
set -uo pipefail
cd "$(dirname "$0")/../.."
data=${1:-../shared} out=${OUT:-$(mktemp -d)} failed=0
export DENO_NO_PACKAGE_JSON=1 DENO_NO_UPDATE_CHECK=1 NO_COLOR=1

# part RUNTIME NAME ARGS…: runs, and says in a line how it ended
part() {
  local runtime=$1 name=$2 log=$out/$1-${2// /-}.log start=$SECONDS
  shift 2
  if "$runtime" "$@" >"$log" 2>&1; then
    echo "ok   $name on $runtime: $(tail -1 "$log") ($((SECONDS - start)) s)"
  else
    failed=$((failed + 1))
    echo "FAIL $name on $runtime ($((SECONDS - start)) s):"
    tail -15 "$log" | cut -c1-400 | sed 's/^/     /'
  fi
}
skip() { echo "skip $1: $2"; }
wanted() { [[ " ${PARTS:-ops checkpointing golden real curve} " == *" $1 "* ]]; }

if command -v nvidia-smi >/dev/null; then
  nvidia-smi --query-gpu=name,memory.total,driver_version,compute_cap --format=csv,noheader | sed 's/^/     /'
else
  echo "     no nvidia-smi here"
fi
runtimes=()
for r in deno bun; do command -v "$r" >/dev/null && runtimes+=("$r"); done
[ ${#runtimes[@]} -gt 0 ] || { echo "Cannot start: neither deno nor bun is on PATH" >&2; exit 1; }

for r in "${runtimes[@]}"; do
  plain=() mapped=(--tsconfig-override tests/gpu/tsconfig.json)
  [ "$r" = deno ] && plain=(run -A --no-config --no-lock) && mapped=("${plain[@]}" --import-map tests/gpu/import_map.json)
  if wanted ops; then part "$r" operations "${mapped[@]}" tests/gpu/ops.ts; fi
  if wanted checkpointing; then part "$r" checkpointing "${plain[@]}" tests/gpu/checkpointing.ts; fi
  if wanted golden; then
    # our own cases vary the recipe, which the type of activations does not touch: f32 only
    part "$r" "golden cases of recipes" "${plain[@]}" tests/gpu/golden.ts tests/fixtures/golden f32
    if [ -d "$data/golden" ]; then part "$r" "golden cases of models" "${plain[@]}" tests/gpu/golden.ts "$data/golden" f32,bf16
    else skip "golden cases of models on $r" "$data/golden is not there"; fi
  fi
  if wanted real; then
    model=$(sed -n 's/.*"model": *"\([^"]*\)".*/\1/p' "$data/golden-real/case.json" 2>/dev/null)
    if [ -n "$model" ] && [ -f "$data/models/$model" ]; then
      part "$r" golden-real "${plain[@]}" tests/gpu/real.ts "$data/golden-real" "$data/models/$model"
    else
      skip "golden-real on $r" "$data/golden-real or its model is not there"
    fi
  fi
  if wanted curve; then
    if [ -d "$data/golden-real" ]; then part "$r" "8-bit curve" "${plain[@]}" tests/gpu/curve_fp8.ts "$data/golden-real"
    else skip "8-bit curve on $r" "$data/golden-real is not there"; fi
  fi
done
if wanted sanitizer; then
  # racecheck runs all kernels: 2025.3 ends a process in which some are left out and one of those is launched in clusters
  watched() { # TOOL WHAT FILTER FILES…
    part compute-sanitizer "$1 of $2" --tool "$1" --error-exitcode 1 \
      deno run -A --no-config --no-lock --import-map tests/gpu/import_map.json tests/gpu/ops.ts "${@:3}"
  }
  if command -v compute-sanitizer >/dev/null && command -v deno >/dev/null; then
    watched memcheck "passes and products" " on cuda bf16" ops/{feed_forward,rope_linear,norm_pass,lora,matmul}_test.ts gpu/attention_tiles.ts
    watched memcheck "8-bit products" "200 rows" ops/fp8_test.ts
    watched synccheck "passes and products" " on cuda" ops/{feed_forward,rope_linear,lora,fp8}_test.ts
    watched racecheck passes " on cuda bf16" ops/feed_forward_test.ts gpu/attention_tiles.ts
    watched racecheck "8-bit products" "200 rows" ops/fp8_test.ts
    watched racecheck "products cut along k" "linear of" ops/lora_test.ts
  else
    skip sanitizer "compute-sanitizer and deno must be on PATH"
  fi
fi
exit "$failed"
