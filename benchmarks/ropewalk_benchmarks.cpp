/* Google Benchmark over the drivers' benchmarks, on the CPU and on a real GPU.
 *
 * ROPEWALK_BACKEND=cpu or hip selects one of them, an emulated device too.
 * ROPEWALK_BENCHMARK_BRIEF=1 runs every row a few times on one set of buffers, to check that it
 * works, not its speed. Google Benchmark's own options choose rows and output, e.g.
 * --benchmark_filter=rope --benchmark_format=json.
 * Counters: bytes_per_second of the least bytes, and the share of a copy of as many bytes
 * (share_of_copy) or of scaling them in place on the CPU (share_of_scale), taken in turn. */
#include <benchmark/benchmark.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "harness/harness.h"

namespace {

struct Row {
    const rwt_driver *driver;
    const rwt_benchmark *benchmark;
    rw_context *context;
};

/* The harness takes the time, of many runs on rotating buffers: an iteration here is all of them.
 */
void run_row(benchmark::State &state, const Row &row) {
    rwt_timing timing = {};
    const char *brief = std::getenv("ROPEWALK_BENCHMARK_BRIEF");
    timing.brief = brief && !std::strcmp(brief, "1");
    rw_message message;
    for (auto iteration : state) {
        (void)iteration;
        if (!rwt_benchmark_time(row.driver, row.benchmark, row.context, &timing, &message)) {
            state.SkipWithError(message.text);
            return;
        }
        state.SetIterationTime(timing.seconds);
    }
    state.SetBytesProcessed(static_cast<int64_t>(timing.bytes));
    if (timing.copy_seconds > 0)
        state.counters["share_of_copy"] = timing.copy_seconds / timing.seconds;
    if (timing.scale_seconds > 0)
        state.counters["share_of_scale"] = timing.scale_seconds / timing.seconds;
    if (timing.flops > 0)
        state.counters["flops_per_second"] = timing.flops / timing.seconds;
    state.counters["bytes_moved_to_or_from_host"] = static_cast<double>(timing.moved_bytes);
}

void register_rows(rw_context *context) {
    const rw_context_info info = rw_context_get_info(context);
    const bool gpu = !std::strcmp(info.backend, "hip");
    for (const rwt_driver *const *driver = rwt_drivers; *driver; driver++) {
        for (const rwt_benchmark *row = (*driver)->benchmarks; row->name; row++) {
            if (gpu ? !row->gpu : !row->cpu)
                continue;
            const std::string name = std::string((*driver)->name) + "/" + row->name + "/" +
                                     info.backend + " " + info.platform;
            const Row entry = {*driver, row, context};
            benchmark::RegisterBenchmark(
                name.c_str(), [entry](benchmark::State &state) { run_row(state, entry); })
                ->UseManualTime()
                ->Iterations(1)
                ->Unit(benchmark::kMicrosecond);
        }
    }
}

bool open(std::vector<rw_context *> &contexts, rw_backend_kind kind) {
    rw_context_options options = {};
    rw_message message;
    rw_context *context;
    options.backend = kind;
    if (rw_context_create(&options, &context, &message) != RW_OK) {
        std::fprintf(stderr, "%s\n", message.text);
        return false;
    }
    contexts.push_back(context);
    return true;
}

} // namespace

int main(int argc, char **argv) {
    std::vector<rw_context *> contexts;
    const char *backend = std::getenv("ROPEWALK_BACKEND");
    const bool chosen = backend && *backend && std::strcmp(backend, "auto") != 0;
    bool good = open(contexts, chosen ? RW_BACKEND_DEFAULT : RW_BACKEND_CPU);
    if (good && !chosen && rw_backend_probe(RW_BACKEND_HIP).automatic)
        good = open(contexts, RW_BACKEND_HIP);
    if (good) {
        benchmark::Initialize(&argc, argv);
        good = !benchmark::ReportUnrecognizedArguments(argc, argv);
    }
    if (good) {
        for (rw_context *context : contexts)
            register_rows(context);
        benchmark::RunSpecifiedBenchmarks();
    }
    for (rw_context *context : contexts)
        rw_context_destroy(context);
    return good ? 0 : 1;
}
