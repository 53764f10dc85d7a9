# Sourced by the scripts that install or build something: a folder remembers the files that it was made from.

# made FOLDER FILE...: whether FOLDER was made from these very files.
made() {
  local stamp="$1/.made"
  shift
  [[ -f "$stamp" && "$(<"$stamp")" == "$(cat "$@" | sha256sum)" ]]
}

# stamp FOLDER FILE...: remembers that it was.
stamp() {
  local stamp="$1/.made"
  shift
  cat "$@" | sha256sum >"$stamp"
}
