#include "harness/gpu_runtime.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A member, and the function's name in HIP and in CUDA; "" if the runtime lacks it. */
typedef struct entry {
    size_t offset;
    const char *hip;
    const char *cuda;
} entry;

#define ENTRY(member, hip, cuda)                                                                   \
    { offsetof(rwt_gpu_runtime, member), hip, cuda }

static const entry entries[] = {
    ENTRY(stream_create, "hipStreamCreateWithFlags", "cudaStreamCreateWithFlags"),
    ENTRY(stream_destroy, "hipStreamDestroy", "cudaStreamDestroy"),
    ENTRY(stream_synchronize, "hipStreamSynchronize", "cudaStreamSynchronize"),
    ENTRY(launch_host_function, "hipLaunchHostFunc", "cudaLaunchHostFunc"),
    ENTRY(copy_async, "hipMemcpyAsync", "cudaMemcpyAsync"),
    ENTRY(host_alloc, "hipHostMalloc", "cudaHostAlloc"),
    ENTRY(host_free, "hipHostFree", "cudaFreeHost"),
    ENTRY(begin_capture, "hipStreamBeginCapture", "cudaStreamBeginCapture"),
    ENTRY(end_capture, "hipStreamEndCapture", "cudaStreamEndCapture"),
    ENTRY(instantiate_hip, "hipGraphInstantiate", ""),
    ENTRY(instantiate_cuda, "", "cudaGraphInstantiateWithFlags"),
    ENTRY(graph_launch, "hipGraphLaunch", "cudaGraphLaunch"),
    ENTRY(exec_destroy, "hipGraphExecDestroy", "cudaGraphExecDestroy"),
    ENTRY(graph_destroy, "hipGraphDestroy", "cudaGraphDestroy"),
    ENTRY(last_error, "hipGetLastError", "cudaGetLastError"),
};

/* ROPEWALK_GPU_RUNTIME is libcudart, or the module: its runtime is found through it. */
rwt_gpu_runtime rwt_gpu_runtime_open(void) {
    rwt_gpu_runtime runtime;
    memset(&runtime, 0, sizeof runtime);
    void *library = dlopen(ROPEWALK_GPU_RUNTIME, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        fprintf(stderr, "%s\n", dlerror());
        exit(1);
    }
    const int is_cuda = dlsym(library, "cudaGetLastError") != NULL;
    for (size_t i = 0; i < sizeof entries / sizeof *entries; i++) {
        const char *name = is_cuda ? entries[i].cuda : entries[i].hip;
        void *function = *name ? dlsym(library, name) : NULL;
        if (*name && !function) {
            fprintf(stderr, "%s lacks %s\n", ROPEWALK_GPU_RUNTIME, name);
            exit(1);
        }
        memcpy((char *)&runtime + entries[i].offset, &function, sizeof function);
    }
    return runtime;
}

int rwt_gpu_end_capture(const rwt_gpu_runtime *runtime, void *stream, void **exec) {
    void *graph = NULL;
    int error = runtime->end_capture(stream, &graph);
    if (error != 0)
        return error;
    error = runtime->instantiate_cuda ? runtime->instantiate_cuda(exec, graph, 0)
                                      : runtime->instantiate_hip(exec, graph, NULL, NULL, 0);
    runtime->graph_destroy(graph);
    return error;
}
