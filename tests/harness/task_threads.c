#include "harness/task_threads.h"

#include <pthread.h>
#include <stdlib.h>

#define MOST 16

typedef struct task_thread {
    pthread_t thread;
    void (*task)(void *data, int32_t index);
    void *data;
    int32_t index;
} task_thread;

static void *run_task(void *opaque) {
    const task_thread *one = opaque;
    one->task(one->data, one->index);
    return NULL;
}

void rwt_run_threads(int32_t num_tasks, void (*task)(void *data, int32_t index), void *data) {
    task_thread threads[MOST];
    if (num_tasks > MOST)
        exit(1);
    for (int32_t i = 0; i < num_tasks; i++) {
        threads[i] = (task_thread){.task = task, .data = data, .index = i};
        if (pthread_create(&threads[i].thread, NULL, run_task, &threads[i]) != 0)
            exit(1);
    }
    for (int32_t i = 0; i < num_tasks; i++)
        pthread_join(threads[i].thread, NULL);
}
