/* The runtime of the GPU that the module libropewalk-hip.so uses, for tests with streams of their
 * own: HIP's functions or, on HIP's NVIDIA platform, CUDA's. They return 0 for success. */
#ifndef RWT_GPU_RUNTIME_H
#define RWT_GPU_RUNTIME_H

#include <stddef.h>

#define RWT_STREAM_NON_BLOCKING 1u
#define RWT_CAPTURE_GLOBAL 0
#define RWT_HOST_TO_DEVICE 1
#define RWT_DEVICE_TO_HOST 2

typedef struct rwt_gpu_runtime {
    int (*stream_create)(void **stream, unsigned flags);
    int (*stream_destroy)(void *stream);
    int (*stream_synchronize)(void *stream);
    int (*launch_host_function)(void *stream, void (*function)(void *user), void *user);
    int (*copy_async)(void *to, const void *from, size_t bytes, int kind, void *stream);
    int (*host_alloc)(void **pointer, size_t bytes, unsigned flags); /* pinned memory */
    int (*host_free)(void *pointer);
    int (*begin_capture)(void *stream, int mode);
    int (*end_capture)(void *stream, void **graph);
    int (*instantiate_hip)(void **exec, void *graph, void *node, char *log, size_t log_bytes);
    int (*instantiate_cuda)(void **exec, void *graph, unsigned long long flags);
    int (*graph_launch)(void *exec, void *stream);
    int (*exec_destroy)(void *exec);
    int (*graph_destroy)(void *graph);
    int (*last_error)(void); /* and clears it */
} rwt_gpu_runtime;

/* The functions of the module's runtime. On failure prints why and exits. */
rwt_gpu_runtime rwt_gpu_runtime_open(void);

/* An executable graph of what the stream captured; destroys the graph. 0 for success. */
int rwt_gpu_end_capture(const rwt_gpu_runtime *runtime, void *stream, void **exec);

#endif
