#!/bin/sh
# Makes a PKI for demonstrations in DIR, offline: a root, an intermediate that issues all else, a server for
# localhost and a device. In DIR afterwards:
#
#   root.crt                 what the server trusts
#   server.crt  server.key   certificate, intermediate; private key
#   cert.crt    key.pem      device certificate, intermediate, root; private key: the shape in which Span's
#                            own tool delivers them
#
# What is there is kept while it is valid for another day. The authorities' keys are thrown away.
set -eu
umask 077

[ $# -eq 1 ] || { echo "usage: demo-pki.sh DIR" >&2; exit 64; }
dir=$1

is_current() {
    for file in root.crt server.crt server.key cert.crt key.pem; do
        [ -s "$dir/$file" ] || return 1
    done
    for file in root.crt server.crt cert.crt; do
        openssl x509 -in "$dir/$file" -noout -checkend 86400 >/dev/null || return 1
    done
}

# run ARGUMENT...: openssl(1), which talks too much on stderr to be let through where it succeeds.
run() {
    openssl "$@" >"$scratch/log" 2>&1 || { cat "$scratch/log" >&2; exit 1; }
}

# issue NAME SUBJECT DAYS [ISSUER]: NAME.key and NAME.crt, by the section NAME of the configuration.
issue() {
    run req -x509 -config "$scratch/openssl.cnf" -extensions "$1" -subj "/CN=$2" -days "$3" -sha256 \
        -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$scratch/$1.key" -out "$scratch/$1.crt" \
        ${4:+-CA "$scratch/$4.crt" -CAkey "$scratch/$4.key"}
}

mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
! is_current || exit 0

scratch=$(mktemp -d "$dir/.new.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
trap 'exit 1' HUP INT TERM

cat >"$scratch/openssl.cnf" <<'END'
[req]
distinguished_name = subject
[subject]
[root]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[intermediate]
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
[server]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = DNS:localhost, IP:127.0.0.1, IP:::1
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
[device]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = clientAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
END

issue root "Demo Root CA" 15
issue intermediate "Demo Intermediate CA" 15 root
issue server localhost 14 intermediate
issue device demo-device 14 intermediate

cd "$scratch"
cat server.crt intermediate.crt >server.chain
cat device.crt intermediate.crt root.crt >device.chain
mv root.crt ../root.crt
mv server.chain ../server.crt
mv server.key ../server.key
mv device.chain ../cert.crt
mv device.key ../key.pem
