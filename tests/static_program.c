/* A program that contains the library: where it searches for the HIP module. */
#include <ropewalk/context.h>

#include <stdio.h>

int main(void) {
    const rw_backend_probe_result probe = rw_backend_probe(RW_BACKEND_HIP);
    printf("%s\n", probe.found ? "found" : probe.why.text);
    return 0;
}
