# Reads the assembly that LLVM writes for an AMD GPU and prints one line per kernel:
#
#   NAME MATRIX VECTOR LDS MEMORY SCALAR
#
# the number of instructions of its main loop by kind. The main loop is the innermost loop that
# contains, together with the loops inside it, half of the kernel's matrix instructions or, if there
# are none, of its 16-byte memory accesses; the whole kernel if no loop does. An instruction counts
# once, also inside an inner loop. With -v folder=FOLDER the instructions of the loop are written to
# FOLDER/NAME.s, for llvm-mca.
#
# LLVM states in comments which loop a block belongs to:
#   .LBB4_599:   ;   Parent Loop BB4_255 Depth=1      a header lists outer loops, then itself
#                ; =>  This Inner Loop Header: Depth=2
#   ; %bb.600:   ;   in Loop: Header=BB4_599 Depth=2  other blocks name their innermost loop

function kind_of(op) {
    if (op ~ /^v_(mfma|smfmac|wmma|swmmac)/) return "matrix"
    if (op ~ /^v_/) return "vector"
    if (op ~ /^ds_/) return "lds"
    if (op ~ /^(global|flat|buffer|scratch)_(load|store|atomic)/) return "memory"
    if (op ~ /^s_/) return "scalar"
    return "none"
}

# Adds a block's counts to the loop `header` and to those around it; "": to the kernel only.
function count_block(    kind, header) {
    for (kind in in_block) {
        total[kind] += in_block[kind]
        for (header = loop; header != ""; header = around[header])
            counts[header, kind] += in_block[kind]
    }
    for (header = loop; header != ""; header = around[header])
        text[header] = text[header] code
    text[""] = text[""] code
    split("", in_block)
    code = ""
}

function start_block() {
    count_block()
    loop = outer = ""
}

function finish_kernel(    measure, header, best, line, kind, n, kinds) {
    count_block()
    if (kernel == "")
        return
    measure = total["matrix"] > 0 ? "matrix" : "wide"
    best = ""
    for (header in depth)
        if (2 * counts[header, measure] >= total[measure] &&
            (best == "" || depth[header] > depth[best]))
            best = header
    line = kernel
    n = split("matrix vector lds memory scalar", kinds, " ")
    for (kind = 1; kind <= n; kind++)
        line = line " " (best == "" ? total[kinds[kind]] : counts[best, kinds[kind]]) + 0
    print line
    if (folder != "") {
        printf "%s", text[best] >(folder "/" kernel ".s")
        close(folder "/" kernel ".s")
    }
}

/^_Z[A-Za-z0-9_$.]*:/ {
    split("", depth); split("", around); split("", counts); split("", total); split("", text)
    kernel = $1
    sub(/:.*/, "", kernel)
    loop = outer = code = ""
    split("", in_block)
    inside = 1
}
inside && (/^\.LBB[0-9_]+:/ || /^; %bb\.[0-9]+:/) {
    start_block()
    label = $1
    sub(/^\.L/, "", label)
    sub(/:.*/, "", label)
}
inside && /Parent Loop BB[0-9_]+ Depth=/ {
    outer = $0
    sub(/.*Parent Loop /, "", outer)
    sub(/ Depth=.*/, "", outer)
}
inside && /=> *This (Inner )?Loop Header: Depth=/ {
    loop = label
    around[loop] = outer
    depth[loop] = $0
    sub(/.*Depth=/, "", depth[loop])
    depth[loop] += 0
}
inside && /in Loop: Header=BB[0-9_]+ Depth=/ {
    loop = $0
    sub(/.*Header=/, "", loop)
    sub(/ Depth=.*/, "", loop)
}
inside && /^\t[a-z]/ {
    kind = kind_of($1)
    if (kind != "none") {
        in_block[kind]++
        if ($1 ~ /^(global|flat)_(load|store)_(dwordx4|b128)/)
            in_block["wide"]++
        instruction = $0
        sub(/;.*/, "", instruction)
        if ($1 !~ /^s_(cbranch|branch|endpgm|setpc|swappc)/)
            code = code instruction "\n"
    }
}
inside && /^\.Lfunc_end/ {
    finish_kernel()
    inside = 0
    kernel = ""
}
