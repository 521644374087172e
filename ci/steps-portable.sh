# Steps of ci/test, which sources this file: another compiler, another processor, several threads.

# Runs the quick tier of the CPU backend, compiled by clang with its own OpenMP, with few random
# cases.
clang() {
    install_packages "${packages_for_clang[@]}" || return 77
    configure clang -DCMAKE_C_COMPILER=clang-19 -DCMAKE_CXX_COMPILER=clang++-19 \
        -DROPEWALK_HIP=off -DROPEWALK_WERROR=ON || return 1
    build clang || return 1
    ROPEWALK_TEST_RANDOM=10 suites clang quick test_ops-cpu-large
}

# Inspects the vector code of the CPU backend for aarch64 and runs its tests in qemu-user: half of
# the cases of test_ops and no random ones, no tests that repeat cases of test_ops for their
# accuracy, no tests of the emulator of GPUs. ROPEWALK_TEST_TIER=full runs everything.
aarch64() {
    local without=(test_ops-cpu-large 'test_(attention_accuracy|seed_report)-cpu'
        '(hip|matrix_units)_.*')
    install_packages "${packages_for_aarch64[@]}" || return 77
    aarch64_libraries || return $?
    configure aarch64 --toolchain "$root/cmake/aarch64-linux-gnu.cmake" -DROPEWALK_HIP=off \
        -DROPEWALK_WERROR=ON -DCMAKE_FIND_ROOT_PATH="$root/build/aarch64_libraries" || return 1
    build aarch64 || return 1
    ci/inspect-aarch64 build/aarch64 || return 1
    if [ "${ROPEWALK_TEST_TIER:-quick}" = full ]; then
        suites aarch64 full
    else
        ROPEWALK_TEST_RANDOM=0 ROPEWALK_TEST_SHARE=1/2 suites aarch64 quick "${without[@]}"
    fi
}

# Compiles jansson and cmocka from the distribution's source packages into build/aarch64_libraries:
# there are no packages of them for cross compilers, and those of another architecture would have to
# be enabled for the whole system.
aarch64_libraries() {
    local prefix=$root/build/aarch64_libraries name
    [ -e "$prefix/complete" ] && return 0
    rm -rf "$prefix" && mkdir -p "$prefix"/apt/{parts,lists/partial,cache/archives/partial}
    fetch_sources "$prefix/apt" jansson cmocka >build/aarch64_libraries.log 2>&1 || {
        echo "no source packages: $(tail -n 1 build/aarch64_libraries.log)"
        return 77
    }
    for name in jansson cmocka; do
        source_folder=$(echo "$prefix/apt/$name"-*/) configure "aarch64_libraries/$name" \
            --toolchain "$root/cmake/aarch64-linux-gnu.cmake" -DCMAKE_INSTALL_PREFIX="$prefix" \
            -DCMAKE_INSTALL_LIBDIR=lib -DJANSSON_BUILD_SHARED_LIBS=ON -DJANSSON_BUILD_DOCS=OFF \
            -DJANSSON_EXAMPLES=OFF -DJANSSON_WITHOUT_TESTS=ON -DWITH_EXAMPLES=OFF || return 1
        build "aarch64_libraries/$name" install >/dev/null || return 1
    done
    touch "$prefix/complete"
}

# fetch_sources FOLDER PACKAGE...: fetches and unpacks source packages from where the system gets
# its packages, without root's rights and without changes to apt's own files.
fetch_sources() {
    local folder=$1 list
    shift
    for list in /etc/apt/sources.list /etc/apt/sources.list.d/{debian,ubuntu}.sources; do
        [ ! -e "$list" ] || sed -E '/^deb-src/d; s/^deb /deb-src /; s/^Types:.*/Types: deb-src/' \
            "$list" >"$folder/parts/${list##*/}"
    done
    local apt=(apt-get -q -o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts="$folder/parts"
        -o Dir::State::Lists="$folder/lists" -o Dir::Cache="$folder/cache"
        -o APT::Sandbox::User="$(id -un)" -o APT::Update::Error-Mode=any)
    "${apt[@]}" update && (cd "$folder" && "${apt[@]}" source "$@")
}

# Runs contexts on several threads under ThreadSanitizer, on a caller's pool and on clang's OpenMP,
# which reports its synchronization to the sanitizer (libarcher; GNU's does not). The emulated HIP
# module is that of the step emulated, without instrumentation: only the library's use of it is
# checked, since threads of its kernels are fibers.
threads() {
    install_packages "${packages_for_threads[@]}" || return 77
    configure threads -DCMAKE_C_COMPILER=clang-19 -DCMAKE_CXX_COMPILER=clang++-19 \
        -DROPEWALK_HIP=off -DROPEWALK_WERROR=ON -DROPEWALK_SANITIZE=thread \
        -DCMAKE_BUILD_TYPE=None -DCMAKE_C_FLAGS=-O1 || return 1
    build threads test_concurrency test_threads || return 1
    emulated_configure && build emulated ropewalk-hip || return 1
    local backend test
    for backend in cpu hip; do
        for test in test_concurrency test_threads; do
            ROPEWALK_BACKEND=$backend ROPEWALK_BACKEND_PATH=$root/build/emulated/lib \
                TSAN_OPTIONS=die_after_fork=0:ignore_noninstrumented_modules=1 \
                "build/threads/bin/$test" || return 1
        done
    done
}
