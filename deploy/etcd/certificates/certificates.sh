#!/bin/sh
# Makes what is missing of a certificate authority, etcd's certificate and the nodes' below a folder:
#
#   certificates.sh FOLDER
#
# RATCHET_ETCD_SERVICE_HOST, which the kubelet sets for the Service ratchet-etcd, is the address by which nodes
# reach etcd; ETCD_NAMES are the names of the members, with spaces between them. What is there already stays,
# unless it ends within a month or has another address.
set -eu
umask 077

address=${RATCHET_ETCD_SERVICE_HOST:?the Service ratchet-etcd has no address yet}
names=${ETCD_NAMES:?}
days=3650
month=2592000
new_key="-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
cd "$1"
mkdir -p ca server client

lasts() {
    [ -s "$1" ] && openssl x509 -in "$1" -noout -checkend "$month" >/dev/null
}

# issue NAME SUBJECT USAGE [SUBJECT ALTERNATIVE NAMES]
issue() {
    if lasts "$1/tls.crt" && [ -s "$1/tls.key" ] &&
        openssl verify -CAfile ca/ca.crt "$1/tls.crt" >/dev/null 2>&1 &&
        { [ -z "${4:-}" ] || names_match "$1/tls.crt"; }; then
        return
    fi
    {
        echo "basicConstraints=critical,CA:FALSE"
        echo "keyUsage=critical,digitalSignature"
        echo "extendedKeyUsage=$3"
        [ -z "${4:-}" ] || echo "subjectAltName=$4"
    } >"$1/extensions"
    # shellcheck disable=SC2086 # several words on purpose
    openssl req -new $new_key -subj "$2" -keyout "$1/tls.key" -out "$1/request" 2>/dev/null
    openssl x509 -req -in "$1/request" -days "$days" -CA ca/ca.crt -CAkey ca/ca.key \
        -CAcreateserial -extfile "$1/extensions" -out "$1/tls.crt" 2>/dev/null
    rm -f "$1/request" "$1/extensions" ca/ca.srl
    cp ca/ca.crt "$1/ca.crt"
    echo "made the certificate for $1"
}

# names_match FILE: whether etcd's certificate is for the address and for every name.
names_match() {
    openssl x509 -in "$1" -noout -checkip "$address" | grep -q 'does match' || return 1
    for name in $names; do
        openssl x509 -in "$1" -noout -checkhost "$name" | grep -q 'does match' || return 1
    done
}

if ! lasts ca/ca.crt || [ ! -s ca/ca.key ]; then
    # shellcheck disable=SC2086
    openssl req -x509 $new_key -days "$days" -subj /CN=ratchet-etcd-ca \
        -addext keyUsage=critical,keyCertSign,cRLSign -keyout ca/ca.key -out ca/ca.crt 2>/dev/null
    echo "made the certificate authority"
fi

alternatives="IP:$address,IP:127.0.0.1,DNS:localhost"
for name in $names; do
    alternatives="$alternatives,DNS:$name"
done
# Members are each other's clients, too.
issue server /CN=ratchet-etcd serverAuth,clientAuth "$alternatives"
# Without names: etcd would look whether the client has one of them.
issue client /CN=ratchet clientAuth
