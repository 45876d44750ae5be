#!/usr/bin/env bash
# Builds the program for the Raspberry Pi's processors and runs it there, under qemu, against servers of this machine.
# `make cross-deps` installs the compilers and qemu; mbed TLS and cmocka for those processors are Debian's packages,
# unpacked under build/cross, so that this machine gains no foreign architecture.
# BUILD, PYTHON: as in the Makefile. JOBS: how many tests run at once.
set -euo pipefail
cd "$(dirname "$0")/../.."
build=$(realpath "${BUILD:-build}")
cross=$build/cross
export PYTHONDONTWRITEBYTECODE=1

die() {
    echo "cross-test: $*" >&2
    exit 1
}

tool_of() {
    case $1 in
    armhf) echo arm-linux-gnueabihf ;;
    armel) echo arm-linux-gnueabi ;;
    arm64) echo aarch64-linux-gnu ;;
    esac
}

# Debian 13 has no qemu-*-static: its qemu-* are static themselves.
qemu_of() {
    local name=qemu-arm
    [ "$1" != arm64 ] || name=qemu-aarch64
    command -v $name-static || command -v $name
}

require_tools() {
    local arch
    for arch in armhf armel arm64; do
        command -v "$(tool_of $arch)-gcc" >/dev/null || die "no compiler for $arch; see make cross-deps"
        [ -e "/usr/$(tool_of $arch)/lib/libc.a" ] || die "no C library for $arch; see make cross-deps"
        qemu_of $arch >/dev/null || die "no qemu for $arch; see make cross-deps"
    done
}

# An apt of its own, which takes this machine for one of that architecture and installs nothing.
apt_of() {
    local state=$cross/$1/apt command=$2
    "$command" -qq -o APT::Architecture="$1" -o APT::Architectures="$1" -o APT::Sandbox::User="$(id -un)" \
        -o Dir::State="$state" -o Dir::State::status="$state/status" -o Dir::Cache="$state" \
        -o Acquire::Languages=none -o Acquire::Retries=3 "${@:3}"
}

fetch_libraries() {
    local arch=$1 package packages=(libmbedtls-dev libcmocka-dev)
    [ ! -e "$cross/$arch/complete" ] || return 0
    echo "--- $arch: libraries"
    mkdir -p "$cross/$arch"/{apt/lists/partial,apt/archives/partial,packages}
    : >"$cross/$arch/apt/status"
    # Some other source of this machine may not have this architecture; what counts is the download.
    apt_of "$arch" apt-get update || true
    mapfile -t -O 2 packages < <(apt_of "$arch" apt-cache depends --important "${packages[@]}" |
        sed -n 's/^ *Depends: //p' | sort -u)
    (cd "$cross/$arch/packages" && apt_of "$arch" apt-get download "${packages[@]}") ||
        die "$arch: libmbedtls-dev or libcmocka-dev cannot be downloaded"
    for package in "$cross/$arch/packages"/*.deb; do
        dpkg-deb -x "$package" "$cross/$arch"
    done
    rm -rf "$cross/$arch/apt"
    touch "$cross/$arch/complete"
}

# build VARIANT ARCH MAKE-ARGUMENT...
build_variant() {
    local variant=$cross/build-$1 tool libraries
    tool=$(tool_of "$2")
    libraries=$cross/$2/usr/lib/$tool
    make --no-print-directory -s -j2 BUILD="$variant" CC="$tool-gcc" MBEDTLS_CFLAGS="-I$cross/$2/usr/include" \
        MBEDTLS_LIBS="-L$libraries -Wl,-rpath-link,$libraries -lmbedtls -lmbedx509 -lmbedcrypto" \
        "$variant/dtls-send" "$variant/tests/ten_lines" "$variant/tests/names.so" "${@:3}" >"$variant.log" 2>&1 ||
        { cat "$variant.log" >&2 && die "$1: no build"; }
    ln -sf "$build/inboxd" "$variant/inboxd"
}

emulator() {
    echo "$(qemu_of "$1") -L /usr/$(tool_of "$1") -E LD_LIBRARY_PATH=$cross/$1/usr/lib/$(tool_of "$1")"
}

unit_tests() {
    local test emulator
    read -ra emulator <<<"$(emulator "$2")"
    for test in tests/unit/test_*.c; do
        "${emulator[@]}" "$cross/build-$1/tests/$(basename "$test" .c)" >"$cross/unit.log" 2>&1 ||
            { cat "$cross/unit.log" >&2 && die "$1: $test"; }
    done
    echo "$1: unit tests passed"
}

# The smoke tests, to which all of tests/cross belongs. Left out: what runs the program without its emulator, and for a
# static program (further arguments) what preloads a resolver.
end_to_end() {
    BUILD=$cross/build-$1 TEST_WRAPPER=$2 "${PYTHON:-/usr/bin/python3}" -m pytest -q -n "${JOBS:-4}" \
        -p no:cacheprovider -m smoke tests/e2e tests/cross --ignore tests/e2e/test_documents.py "${@:3}" ||
        die "$1: failed"
}

dynamic() {
    local variant=$1 arch=$2
    echo "=== $variant"
    build_variant "$variant" "$arch" unit-tests "${@:3}"
    unit_tests "$variant" "$arch"
    end_to_end "$variant" "$(emulator "$arch")"
}

require_tools
mkdir -p "$cross"
for arch in armhf armel arm64; do
    fetch_libraries $arch
done

without_preloading=(--deselect 'tests/e2e/test_addresses.py::test_a_name_is_looked_up[server.test]')
sanitizers="-fsanitize=undefined,alignment -fno-sanitize-recover=all"
dynamic armhf armhf CFLAGS='-O2 -g -Werror'
dynamic armhf-ubsan armhf CFLAGS="-O1 -g -Werror $sanitizers" LDFLAGS="$sanitizers"
dynamic arm64 arm64 CFLAGS='-O2 -g -Werror'

echo "=== armel, static, on the Pi Zero's processor"
build_variant armel-static armel STATIC=1 CFLAGS='-O2 -g -Werror'
end_to_end armel-static "$(emulator armel) -cpu arm1176" "${without_preloading[@]}"

echo "=== this machine, static"
make --no-print-directory -s -j2 STATIC=1 BUILD="$cross/build-static" "$cross/build-static/dtls-send" \
    "$cross/build-static/tests/"{ten_lines,names.so} >/dev/null
ln -sf "$build/inboxd" "$cross/build-static/inboxd"
end_to_end static "" "${without_preloading[@]}"
echo "cross-test passed in $SECONDS s"
