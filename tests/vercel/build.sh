#!/usr/bin/env bash
# Has the real `vercel build` make the function, without an account or a network beyond npm's registry, and runs
# tests/it/vercel.rs and Segment's SDK for Node with what it made. It compiles with optimisation: minutes, so `.ci/run` leaves
# it out. Needs node, and what tests/sdks/install.sh installs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
root="$PWD"
work="$root/target/vercel"
mkdir -p "$work/npm"

# The builder's dependencies are some 360 MB; they stay for the next run.
if ! cmp --silent tests/vercel/package.json "$work/npm/package.json"; then
  cp tests/vercel/package.json "$work/npm/package.json"
  npm install --prefix "$work/npm" --ignore-scripts --no-audit --no-fund --silent
fi

# What a deployment uploads: what is in the repository, without what .vercelignore names.
project="$work/project"
mkdir -p "$project"
find "$project" -mindepth 1 -maxdepth 1 ! -name target -exec rm -rf {} +
git archive HEAD | tar -x -C "$project"
while read -r ignored; do
  [[ "$ignored" == /* ]] && rm -rf "${project:?}$ignored"
done <"$project/.vercelignore"

# In place of an account: `vercel pull` would write this. VERCEL_BUILD_IMAGE says that we are on Vercel's build machine,
# whose target is this very platform; without it the builder wants cargo-zigbuild.
mkdir -p "$project/.vercel"
echo '{"projectId":"prj_none","orgId":"team_none","settings":{"framework":"rust"}}' >"$project/.vercel/project.json"
(
  cd "$project"
  VERCEL_BUILD_IMAGE=local VERCEL_TELEMETRY_DISABLED=1 CI=1 \
    "$work/npm/node_modules/.bin/vercel" build --prod --yes --standalone
)

output="$project/.vercel/output"
function="$output/functions/src/main.func"
if [[ -d "$output/static" ]]; then
  [[ -z "$(find "$output/static" -type f)" ]] || { echo "the source is published: $output/static" >&2; exit 1; }
fi
files="$(find "$function" -type f -printf '%f\n' | LC_ALL=C sort | tr '\n' ' ')"
[[ "$files" == ".vc-config.json executable " ]] || { echo "the function is $files" >&2; exit 1; }
stat --format='%s bytes: %n' "$function/executable"

LIBROSEG_FUNCTION="$function/executable" cargo test --test it -- --nocapture vercel
