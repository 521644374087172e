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
