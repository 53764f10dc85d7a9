#!/usr/bin/env bash
# Installs what the SDK tests (tests/it/sdks.rs, tests/it/bigquery_fake.rs) need: the SDKs of package-lock.json and
# requirements.txt, Chromium and the driver of the `segment` crate. A second run finds its stamps and does nothing.
#
# Chromium comes from apt, where this script may: as root, or in CI. Elsewhere install it, or set CHROMIUM to its path.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
source ../apt.sh
source ../stamps.sh

if ! made node_modules package.json package-lock.json; then
  echo "npm packages"
  # No package here needs its install script.
  npm ci --ignore-scripts --no-audit --no-fund
  stamp node_modules package.json package-lock.json
fi

if ! made .venv requirements.txt; then
  echo "python packages"
  rm -rf .venv
  if ! python3 -m venv .venv; then
    may_install
    apt_install python3-venv
    python3 -m venv --clear .venv
  fi
  .venv/bin/pip install --quiet --disable-pip-version-check --requirement requirements.txt
  stamp .venv requirements.txt
fi

has_chromium() {
  [[ -x "${CHROMIUM:-}" || -x /usr/bin/chromium || -x /usr/bin/chromium-browser || -x /usr/bin/google-chrome ]]
}

if ! has_chromium; then
  if may_install; then
    echo "chromium"
    apt_install chromium
  else
    echo "no Chromium: install it or set CHROMIUM to its path; the browser tests are skipped until then" >&2
  fi
fi

# Beside the folders of our own profiles, where tests/it/sdks.rs looks; cargo itself knows when nothing is to be done.
target="${CARGO_TARGET_DIR:-../../target}"
[[ "$target" == /* || "$target" == ../../target ]] || target="../../$target"
cargo build --quiet --locked --manifest-path rust/Cargo.toml --target-dir "$target/sdks"
