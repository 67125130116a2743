#!/usr/bin/env bash
# Installs the software that the interop tests talk to, where this machine lets us; each test says what it misses.
set -u
wanted=(openssl curl postgresql nginx-light haproxy mosquitto mosquitto-clients gnutls-bin freeradius eapoltest wrk strace)
programs=(openssl curl /usr/lib/postgresql nginx haproxy mosquitto mosquitto_pub certtool freeradius eapol_test wrk strace)
missing=()
for at in "${!wanted[@]}"; do
  program=${programs[$at]}
  if [[ $program == /* ]]; then [[ -e $program ]] || missing+=("${wanted[$at]}")
  elif ! PATH=$PATH:/usr/sbin command -v "$program" >/dev/null; then missing+=("${wanted[$at]}"); fi
done
if ((${#missing[@]} == 0)); then echo "interop: all programs are here"; exit 0; fi
if [[ $(id -u) != 0 ]] || ! command -v apt-get >/dev/null; then
  echo "interop: not installed, since this is not root on Debian: ${missing[*]}"; exit 0
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
exit 0
