# Steps of ci/test that build the programs of benchmarks/examples as a user does, against an
# installed package, and run them; sourced, not run.

examples_folder=$root/build/examples

# Installs the package for the examples; sets their flags and the folder of the libraries.
install_for_examples() {
    local prefix=$examples_folder/installed pc
    emulated_build || return 1
    rm -rf "$examples_folder" && mkdir -p "$examples_folder" &&
        cmake --install build/emulated --prefix "$prefix" >/dev/null || return 1
    pc=$(dirname "$(find "$prefix" -name ropewalk.pc)")
    example_flags=$(PKG_CONFIG_PATH=$pc pkg-config --cflags --libs ropewalk) &&
        example_libraries=$(PKG_CONFIG_PATH=$pc pkg-config --variable=libdir ropewalk)
}

# run_example COMMAND...
run_example() {
    LD_LIBRARY_PATH=$example_libraries "$@"
}

# The first lines of README, which are part of a program, and C++.
examples() {
    local program=$examples_folder/attention
    install_for_examples || return 1
    first_lines || return 1
    # eval: pkg-config quotes its output for a shell.
    eval "c++ -std=c++17 -Wall -Wextra -Werror benchmarks/examples/attention.cpp \
        -o '$program' $example_flags" || return 1
    run_example "$program"
}

# README's block that begins with ~~~c, within a function that declares its variables.
first_lines() {
    local program=$examples_folder/first_lines
    {
        cat <<'EOF'
#include <ropewalk/ropewalk.h>
#include <stdio.h>
int main(void) {
    static float memory[4][64 * 8 * 128];
    rw_tensor tensors[4];
    for (int i = 0; i < 4; i++) {
        int64_t shape[] = {1, 64, i == 0 || i == 3 ? 8 : 2, 128};
        tensors[i] = rw_tensor_contiguous(memory[i], RW_F32, 4, shape);
    }
    rw_tensor q = tensors[0], k = tensors[1], v = tensors[2], out = tensors[3];
    rw_rope_spec llama = {.head_dim = 128, .theta = 500000, .max_position_embeddings = 8192};
    rw_pattern causal = {.causal = true};
    rw_context *context = NULL;
    rw_rope *rope = NULL;
    rw_message why;
EOF
        awk '/^~~~c$/ {on = 1; next} /^~~~$/ {on = 0} on' README.md
        cat <<'EOF'
    if (failed)
        puts(context ? rw_last_error(context) : why.text);
    rw_rope_destroy(rope);
    rw_context_destroy(context);
    return failed;
}
EOF
    } >"$program.c"
    grep -q rw_attention "$program.c" || return 1
    eval "cc -std=c11 -Wall -Wextra -Werror '$program.c' -o '$program' $example_flags" || return 1
    ROPEWALK_BACKEND=cpu run_example "$program"
}

# Rust, whose declarations of the C interface must be those of the headers.
rust() {
    command -v rustc >/dev/null || install_packages "${packages_for_rust[@]}" || return 77
    install_for_examples || return 1
    rust_example benchmarks/examples || return 1
    run_example "$examples_folder/rotate" || return 1
    # A declaration that differs must be found: a type, a missing field, a number, a parameter.
    local edit wrong=$examples_folder/wrong
    for edit in 's/ rank: i32,/ rank: u8,/' '/ rotary_start: i64,/d' 's/RW_F16 = 1/RW_F16 = 2/' \
        's/rope: \*const rw_rope,/rope: *mut rw_rope,/'; do
        rm -rf "$wrong" && mkdir "$wrong" && cp benchmarks/examples/*.rs "$wrong" || return 1
        sed -i "$edit" "$wrong/ropewalk.rs"
        ! cmp -s "$wrong/ropewalk.rs" benchmarks/examples/ropewalk.rs || return 1
        if rust_example "$wrong" 2>"$wrong.log" || ! grep -q 'static assertion' "$wrong.log"; then
            echo "the checks accept declarations that were changed by $edit"
            return 1
        fi
    done
}

# rust_example FOLDER: builds the program, and the checks that it prints.
rust_example() {
    local checks=$examples_folder/checks.c
    rustc --edition 2021 -D warnings "$1/rotate.rs" -o "$examples_folder/rotate" \
        -L "$example_libraries" || return 1
    run_example "$examples_folder/rotate" --c-checks >"$checks" || return 1
    [ "$(grep -c _Static_assert "$checks")" -gt 100 ] &&
        eval "cc -std=c11 -Wall -Wextra -Werror -fsyntax-only '$checks' $example_flags"
}

# C with MPI, on 1, 2, 3 and 4 ranks.
mpi() {
    local ranks program=$examples_folder/context_parallel
    install_packages "${packages_for_mpi[@]}" || {
        echo "MPI cannot be installed"
        return 77
    }
    install_for_examples || return 1
    eval "mpicc -std=c11 -Wall -Wextra -Werror benchmarks/examples/context_parallel.c \
        -o '$program' $example_flags -lm" || return 1
    local -x OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
    # More ranks than cores, which yield; containers may not permit copies between processes.
    local -x OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_mpi_yield_when_idle=1
    local -x OMPI_MCA_btl_vader_single_copy_mechanism=none
    for ranks in 1 2 3 4; do
        run_example mpirun -n "$ranks" "$program" || return 1
    done
}
