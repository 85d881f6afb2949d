#!/usr/bin/env bash
# Several Erlang/OTP and Elixir releases beside each other on one Debian machine.
#
#   script/otp-matrix.sh [--refresh] [--check] [23] [25] [27] [29]      without numbers: all four
#
#   --refresh   ask the mirror for newer packages of what is installed
#   --check     run each release: crypto, TLS, mnesia, a generated Mix project
#
# Each release comes from one Debian suite: 23 bullseye, 25 bookworm, 27 trixie, 29 forky. (No suite has 24, 26 or 28.)
# A private apt configuration fetches the packages: the host's sources, package database and installed packages are
# not touched, and apt checks the suite's signature. The packages are unpacked under $OTP_MATRIX_DIR/RELEASE/root and
# their executables re-pointed (by the suite's own patchelf) at the suite's own libraries, so that they run as
# ordinary processes of the host: no root, no chroot, no container.
#
#   $OTP_MATRIX_DIR/RELEASE/bin/        erl erlc escript epmd elixir elixirc iex mix …
#   $OTP_MATRIX_DIR/RELEASE/otp         the Erlang root (lib/, erts-*/, releases/)
#   $OTP_MATRIX_DIR/RELEASE/packages    name=version of everything unpacked
#
# The first run fetches about 200 MB and leaves 410 MB for all four; later runs need no network. Environment:
#   OTP_MATRIX_DIR             default $XDG_CACHE_HOME/otp-matrix or ~/.cache/otp-matrix
#   OTP_MATRIX_MIRROR          default: the mirror of the host's own apt
#   OTP_MATRIX_KEYRING         default /usr/share/keyrings/debian-archive-keyring.gpg
#   OTP_MATRIX_SUITE_RELEASE   another suite for one release, e.g. OTP_MATRIX_SUITE_29=sid
#   OTP_MATRIX_EXTRA           further packages to unpack
set -euo pipefail

recipe=7 # raise it when the layout below changes: what an older recipe made is then made again
matrix=${OTP_MATRIX_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/otp-matrix}
keyring=${OTP_MATRIX_KEYRING:-/usr/share/keyrings/debian-archive-keyring.gpg}
extra=${OTP_MATRIX_EXTRA:-}
packages="erlang-base erlang-asn1 erlang-common-test erlang-crypto erlang-dev erlang-dialyzer erlang-edoc erlang-eldap
 erlang-eunit erlang-ftp erlang-inets erlang-mnesia erlang-observer erlang-os-mon erlang-parsetools
 erlang-public-key erlang-reltool erlang-runtime-tools erlang-snmp erlang-ssh erlang-ssl erlang-syntax-tools erlang-tftp
 erlang-tools erlang-xmerl elixir rebar3"
# Whose shared libraries are unpacked too.
library_roots="erlang-base erlang-crypto erlang-ssl patchelf"

die() { echo "otp-matrix: $*" >&2; exit 1; }

suite_of() { # release
  local override="OTP_MATRIX_SUITE_$1"
  [ -z "${!override:-}" ] || { echo "${!override}"; return; }
  case $1 in
    23) echo bullseye ;;
    25) echo bookworm ;;
    27) echo trixie ;;
    29) echo forky ;;
    *) die "no Debian suite has OTP $1 (23, 25, 27 and 29 are known)" ;;
  esac
}

mirror() {
  [ -z "${OTP_MATRIX_MIRROR:-}" ] || { echo "$OTP_MATRIX_MIRROR"; return; }
  # shellcheck disable=SC2016 # apt's own placeholders
  apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 'Created-By: Packages' |
    awk '$2 !~ /security|updates|backports/ && $1 ~ /debian\/?$/ { print $1; exit }'
}

# Writes the configuration of a private apt for one suite.
write_apt_conf() { # work directory, suite
  local work=$1 from arch
  from=$(mirror)
  [ -n "$from" ] || die "no Debian mirror in the host's apt sources; set OTP_MATRIX_MIRROR"
  [ -r "$keyring" ] || die "no keyring at $keyring (Debian: apt-get install debian-archive-keyring)"
  arch=$(dpkg --print-architecture)
  mkdir -p "$work/lists/partial" "$work/archives/partial" "$work/debs"
  : > "$work/status"
  echo "deb [signed-by=$keyring] $from $2 main" > "$work/sources.list"
  # Valid-Until: a suite that is no longer released to has a Release file past its date; the signature still counts.
  cat > "$work/apt.conf" <<CONF
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Post-Invoke;
Dir::State "$work"; Dir::State::lists "$work/lists"; Dir::State::status "$work/status";
Dir::State::extended_states "$work/extended_states";
Dir::Cache "$work"; Dir::Cache::archives "$work/archives"; Dir::Cache::pkgcache "$work/pkgcache.bin";
Dir::Cache::srcpkgcache "$work/srcpkgcache.bin";
Dir::Etc::sourcelist "$work/sources.list"; Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null"; Dir::Etc::preferencesparts "/dev/null";
Dir::Etc::trusted "/dev/null"; Dir::Etc::trustedparts "/dev/null";
Acquire::Languages "none"; Acquire::PDiffs "false"; Acquire::GzipIndexes "false";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false"; Acquire::Check-Valid-Until "false";
APT::Install-Recommends "false"; APT::Get::AllowUnauthenticated "false";
APT::Architecture "$arch"; APT::Architectures "$arch";
CONF
  [ "$(id -u)" != 0 ] || echo 'APT::Sandbox::User "root";' >> "$work/apt.conf"
}

# The file that `apt-get download` makes of name=version.
deb_of() { # work directory, name=version
  local version=${2#*=}
  echo "$1/debs/${2%%=*}_${version//:/%3a}"_*.deb
}

# apt checks a hash only of what it fetches itself, so each file is checked here against the signed index.
fetch() { # work directory, name=version...
  local work=$1 bad=0 wanted hash file
  shift
  (cd "$work/debs" && apt-get -qq -c "$work/apt.conf" download "$@")
  while read -r wanted hash; do
    file=$(deb_of "$work" "$wanted")
    [ "$(sha256sum < "$file")" = "$hash  -" ] && continue
    echo "otp-matrix: wrong hash, removed: $file" >&2
    rm -f "$file"
    bad=1
  done < <(apt-cache -qq -c "$work/apt.conf" show "$@" |
    awk '/^Package: /{n=$2} /^Version: /{v=$2} /^SHA256: /{print n"="v, $2}' | sort -u)
  return $bad
}

is_elf() { [ "$(head -c4 "$1" | od -An -tx1 | tr -d ' \n')" = 7f454c46 ]; }

unpack() { # work directory, root, name=version...
  local work=$1 root=$2 package
  shift 2
  mkdir -p "$root/usr/"{bin,sbin,lib,lib64}
  for link in bin sbin lib lib64; do ln -s "usr/$link" "$root/$link"; done # merged /usr, as on any Debian
  for package in "$@"; do
    # shellcheck disable=SC2046 # the file name holds an architecture that only the glob knows
    dpkg-deb --fsys-tarfile $(deb_of "$work" "$package") |
      tar -x -C "$root" --keep-directory-symlink --no-same-owner --exclude='./usr/share/doc' --exclude='./usr/share/man' \
        --exclude='./usr/share/locale' --exclude='./usr/lib/systemd' --exclude='./lib/systemd' --exclude='./usr/lib/*/perl*'
  done
}

# Gathers the shared libraries in one folder and points every executable at it. A suite older than the host runs on
# the host's C library, so that a NIF built on the host loads there as well; a newer one brings loader and C library.
repoint() { # new tree, final place, work directory, name=version...
  local new=$1 place=$2 work=$3 root=$1/root triple loader_file loader suite_libc host_libc newer= package file elf
  shift 3
  triple=$(find "$root/usr/lib" -maxdepth 1 -name '*-linux-gnu*' -printf '%f\n' | head -n 1)
  loader_file=$(find "$root/usr/lib/$triple" "$root/usr/lib64" "$root/usr/lib" -maxdepth 1 -name 'ld-linux*' ! -lname '/*' | head -n 1)
  loader=$(basename "$loader_file")
  suite_libc=$(printf '%s\n' "$@" | sed -n 's/^libc6=//p')
  host_libc=$(dpkg-query -W -f '${Version}' libc6 2>/dev/null || echo 0)
  ! dpkg --compare-versions "$suite_libc" gt "$host_libc" || newer=1

  mkdir -p "$new/lib"
  find "$root/usr/lib/$triple" -maxdepth 1 \( -name '*.so' -o -name '*.so.*' \) -exec cp -a {} "$new/lib/" \;
  rm -f "$new/lib/$loader"
  cp -L "$loader_file" "$new/lib/$loader"
  cp -a "$new/lib" "$new/.patchlib" # patchelf itself keeps the suite's whole set
  local patchelf=("$new/.patchlib/$loader" --library-path "$new/.patchlib" "$root/usr/bin/patchelf")
  if [ -z "$newer" ]; then
    for package in libc6 libgcc-s1 libstdc++6; do
      dpkg-deb -c "$work/debs/${package}_"*.deb | awk '{print $6}' | grep -E '\.so(\.|$)' | xargs -rn1 basename |
        (cd "$new/lib" && xargs -r rm -f)
    done
    rm -f "$new/lib/$loader"
  fi

  find "$root/usr/lib/erlang" "$root/usr/lib/elixir" -type f \( -perm -u+x -o -name '*.so' \) > "$new/.files"
  while read -r file; do
    is_elf "$file" || continue
    elf=(--force-rpath --set-rpath "$place/lib")
    if [ -n "$newer" ] && "${patchelf[@]}" --print-interpreter "$file" >/dev/null 2>&1; then
      elf+=(--set-interpreter "$place/lib/$loader")
    fi
    "${patchelf[@]}" "${elf[@]}" "$file"
  done < "$new/.files"
  rm -rf "$new/.files" "$new/.patchlib"
}

# Erlang's start scripts carry their root, and the packages' links point into the host's /usr and /etc.
relocate() { # new tree, final place
  local new=$1 place=$2 root=$1/root file tool found
  ln -s root/usr/lib/erlang "$new/otp"
  { grep -rIlE '/usr/lib/erlang' "$root/usr/lib/erlang/bin" "$root/usr/lib/erlang/"erts-*/bin "$root/usr/bin" 2>/dev/null || true; } |
    while read -r file; do [ -L "$file" ] || sed -i "s#/usr/lib/erlang#$place/root/usr/lib/erlang#g" "$file"; done
  find "$root/usr/lib/erlang" "$root/usr/lib/elixir" -type l | while read -r file; do
    case $(readlink "$file") in /usr/* | /etc/*) ln -sfr "$root$(readlink "$file")" "$file" ;; esac
  done
  mkdir -p "$new/bin"
  for tool in erl erlc escript epmd dialyzer ct_run typer elixir elixirc iex mix rebar3; do
    found=
    for file in "$root/usr/lib/erlang/bin/$tool" "$root/usr/lib/erlang/"erts-*/"bin/$tool" "$root/usr/lib/elixir/bin/$tool" "$root/usr/bin/$tool"; do
      [ -n "$found" ] || [ ! -e "$file" ] || found=${file#"$new/"}
    done
    [ -n "$found" ] || continue
    printf '#!/bin/sh\nPATH=%s:$PATH; export PATH; unset ERL_ROOTDIR BINDIR ROOTDIR\nexec %s "$@"\n' \
      "$place/bin" "$place/$found" > "$new/bin/$tool"
    chmod 755 "$new/bin/$tool"
  done
}

install_release() { # release
  local suite place=$matrix/$1 work stamp apt known wanted libraries versions new
  suite=$(suite_of "$1")
  work=$matrix/.apt/$suite
  stamp="recipe=$recipe suite=$suite dir=$place extra=$extra"
  exec 9> "$matrix/.lock.$1"
  flock 9
  if [ -z "$refresh" ] && [ "$(cat "$place/.stamp" 2>/dev/null)" = "$stamp" ]; then return; fi

  write_apt_conf "$work" "$suite"
  apt=(-qq -c "$work/apt.conf")
  apt-get "${apt[@]}" -o APT::Update::Error-Mode=any update
  known=$(apt-cache "${apt[@]}" pkgnames | sort)
  wanted=$(comm -12 <(tr -s ' \n' '\n' <<<"$packages $extra patchelf" | sed '/^$/d' | sort -u) <(echo "$known"))
  # shellcheck disable=SC2086 # lists of package names from here on
  libraries=$(apt-get "${apt[@]}" -s install $library_roots $extra | sed -n 's/^Inst \([^ ]*\) .*/\1/p' |
    grep -E '^(lib|zlib1g|openssl-provider-legacy|erlang-)' | grep -vE '^lib(pam|perl|sem|sepol|systemd-shared|debconf)')
  # shellcheck disable=SC2046
  versions=$(apt-cache "${apt[@]}" --no-all-versions show $(printf '%s\n' $wanted $libraries | sort -u) |
    awk '/^Package: /{n=$2} /^Version: /{print n"="$2}' | sort -u)
  if [ "$(cat "$place/.stamp" 2>/dev/null)" = "$stamp" ] && [ "$versions" = "$(cat "$place/packages")" ]; then return; fi
  # shellcheck disable=SC2086
  fetch "$work" $versions || fetch "$work" $versions # what was spoilt in the cache is fetched anew

  new=$place.new
  rm -rf "$new"
  # shellcheck disable=SC2086
  unpack "$work" "$new/root" $versions
  echo "$versions" > "$new/packages"
  # shellcheck disable=SC2086
  repoint "$new" "$place" "$work" $versions
  relocate "$new" "$place"
  { find "$work/debs" -name '*.deb' | grep -vFf <(sed 's/:/%3a/g; s/=/_/; s/$/_/' <<<"$versions") || true; } | xargs -r rm -f
  rm -f "$work/pkgcache.bin" "$work/srcpkgcache.bin"
  echo "$stamp" > "$new/.stamp"
  rm -rf "$place.old"
  [ ! -e "$place" ] || mv "$place" "$place.old"
  mv "$new" "$place"
  rm -rf "$place.old"
}

show() { # release
  local bin=$matrix/$1/bin otp elixir
  otp=$("$bin/erl" -noinput -boot start_clean -eval '
    File = filename:join([code:root_dir(), "releases", erlang:system_info(otp_release), "OTP_VERSION"]),
    Version = case file:read_file(File) of {ok, B} -> string:trim(binary_to_list(B)); _ -> erlang:system_info(otp_release) end,
    io:format("OTP ~s, ERTS ~s", [Version, erlang:system_info(version)]), halt().')
  elixir=$(LC_ALL=C.UTF-8 "$bin/elixir" --version 2>/dev/null | sed -n 's/ (compiled.*//; /^Elixir/p')
  printf '%s\t%s\t%s\n' "$1" "$otp" "$elixir"
}

check_release() { # release
  local bin=$matrix/$1/bin scratch
  scratch=$(mktemp -d)
  "$bin/erl" -noinput -boot start_sasl -eval '
    {ok, _} = application:ensure_all_started(ssl), {ok, _} = application:ensure_all_started(inets),
    <<_:16/binary>> = crypto:hash(md5, "x"), {ok, _} = application:ensure_all_started(mnesia),
    {ok, [_ | _]} = inet:getaddrs("localhost", inet), [_ | _] = os:cmd("uname"), halt(0).' </dev/null ||
    { echo "OTP $1: the runtime check failed"; rm -rf "$scratch"; return 1; }
  # A home and temporary directory of its own: newer Mix shares a folder of the temporary directory between users.
  (cd "$scratch" && export MIX_HOME=$scratch/.mix HOME=$scratch TMPDIR=$scratch LC_ALL=C.UTF-8 &&
    "$bin/mix" new demo >/dev/null && cd demo && "$bin/mix" test) > "$scratch/log" 2>&1 ||
    { cat "$scratch/log"; rm -rf "$scratch"; return 1; }
  rm -rf "$scratch"
  echo "OTP $1: runtime, crypto and TLS, mnesia, mix test: ok"
}

refresh='' check='' releases=()
for argument in "$@"; do
  case $argument in
    --refresh) refresh=1 ;;
    --check) check=1 ;;
    [0-9]*) releases+=("$argument") ;;
    *) sed -n '2,26s/^# \{0,1\}//p' "$0"; exit 64 ;;
  esac
done
[ ${#releases[@]} -gt 0 ] || releases=(23 25 27 29)
for release in "${releases[@]}"; do suite_of "$release" >/dev/null; done
mkdir -p "$matrix"
matrix=$(cd "$matrix" && pwd)

jobs=() failed=0
for release in "${releases[@]}"; do
  install_release "$release" &
  jobs+=($!)
done
for i in "${!jobs[@]}"; do
  wait "${jobs[$i]}" || { echo "otp-matrix: OTP ${releases[$i]} could not be installed" >&2; failed=1; }
done
[ $failed = 0 ] || exit 1
for release in "${releases[@]}"; do show "$release"; done
[ -z "$check" ] || for release in "${releases[@]}"; do check_release "$release" || failed=1; done
exit $failed
