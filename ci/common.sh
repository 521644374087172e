# Common functions of the scripts in this folder; sourced, not run.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
jobs=$(nproc)

packages_to_build=(build-essential cmake ninja-build pkg-config libjansson-dev libpng-dev)
packages_to_test=(libcmocka-dev libbenchmark-dev clang-format)
packages_for_amd=(hipcc libamdhip64-dev rocm-device-libs)
packages_for_young_amd=(clang-19 lld-19 llvm-19 clang-tools-19)
packages_for_amd_isa=(python3-dev clang-19)
packages_for_python=(python3-venv)
packages_for_aarch64=(gcc-aarch64-linux-gnu g++-aarch64-linux-gnu qemu-user)
packages_for_clang=(clang-19 libomp-19-dev)
packages_for_threads=(clang-19 libomp-19-dev libclang-rt-19-dev)
packages_for_rust=(rustc)
packages_for_mpi=(libopenmpi-dev openmpi-bin)
packages_for_fuzz=(clang-19 libclang-rt-19-dev libomp-19-dev)

installed() {
    dpkg-query -W -f='${Status}' "$1" 2>/dev/null | grep -q 'ok installed'
}

# Installs missing packages, as root or with sudo; returns 1 on failure.
install_packages() {
    local missing=() name as_root=()
    for name; do
        installed "$name" || missing+=("$name")
    done
    [ ${#missing[@]} -eq 0 ] && return 0
    command -v apt-get >/dev/null || {
        echo "ropewalk: there is no apt-get; install these packages manually: ${missing[*]}" >&2
        return 1
    }
    [ "$(id -u)" -eq 0 ] || as_root=(sudo)
    echo "installing ${missing[*]}"
    "${as_root[@]}" apt-get update -qq &&
        "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
            apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# configure FOLDER [CMake options]: a Release build in build/FOLDER unless the options say otherwise,
# of the project in `source_folder` [.].
configure() {
    local folder=build/$1
    shift
    cmake -S "${source_folder:-.}" -B "$folder" -G Ninja "$@" >"$folder.log" 2>&1 || {
        cat "$folder.log"
        return 1
    }
    grep -- '-- HIP:' "$folder.log" || true
}

# build FOLDER [TARGET...]
build() {
    local folder=build/$1
    shift
    cmake --build "$folder" -j "$jobs" ${1:+--target "$@"} -- --quiet
}
mkdir -p build
