# Sourced by the scripts that need Debian's or Ubuntu's packages: as root, or with a `sudo` that does not ask.

apt_install() {
  local sudo=()
  [[ "$(id -u)" == 0 ]] || sudo=(sudo --non-interactive)
  "${sudo[@]}" apt-get update --quiet --quiet
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet --quiet --no-install-recommends "$@"
}

# may_install: whether a script that was not asked to may do so.
may_install() {
  command -v apt-get >/dev/null && [[ "$(id -u)" == 0 || "${CI:-}" == true ]]
}
