# A step of ci/test, which sources this file: the kernels that use AMX's tiles, on a processor that
# has them. Elsewhere plain C stands for the instructions, in the suites of the step emulated.

# Runs attention's cases, and times attention with tiles and without.
amx() {
    local program=build/amx/bin/ropewalk isa
    grep -qw amx_bf16 /proc/cpuinfo || { echo "this processor has no AMX" && return 77; }
    configure amx -DROPEWALK_HIP=off -DROPEWALK_WERROR=ON && build amx || return 1
    ROPEWALK_CPU_ISA=amx "$program" info | grep -qw amx || { echo "the kernel does not permit AMX" && return 77; }
    "$program" check attention attention_combine --backend cpu --tier full || return 1
    for isa in v4 amx v4 amx; do
        echo "ROPEWALK_CPU_ISA=$isa"
        ROPEWALK_CPU_ISA=$isa "$program" bench attention || return 1
    done
}
