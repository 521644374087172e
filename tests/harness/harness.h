/* Common to the tests, `ropewalk check`, `ropewalk bench` and the Google Benchmark harness.
 *
 * A driver describes one operation: its cases, how to fill the buffers of a case, a naive reference
 * in double, and how to call the operation. The harness does the rest. It owns every buffer, guards
 * it on both sides, poisons the outputs, and requires that each element that the reference expects
 * is right and that every other byte is unchanged.
 *
 * Nothing here includes kernels/: a bug in a shared formula must not pass on both backends.
 */
#ifndef RWT_HARNESS_H
#define RWT_HARNESS_H

#include <ropewalk/ropewalk.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- random numbers ---------------------------------------------------------------------- */

typedef struct rwt_random {
    uint64_t state;
} rwt_random;

uint64_t rwt_random_next(rwt_random *random);
int64_t rwt_random_below(rwt_random *random, int64_t end); /* in [0, end) */
double rwt_random_uniform(rwt_random *random, double low, double high);

/* ---- memory and elements ----------------------------------------------------------------- */

/* Zeroed memory; exits on failure. */
void *rwt_allocate(size_t bytes);

/* The number of dtypes: the last one of rw_dtype, plus 1. */
enum {
    RWT_NUM_DTYPES = RW_F8_E5M2 + 1
};

bool rwt_dtype_is_float(rw_dtype dtype);
bool rwt_dtype_is_f8(rw_dtype dtype);

/* The distance from 1 to the next number: 2^-23, 2^-10, 2^-7, 2^-3, 2^-2. */
double rwt_dtype_epsilon(rw_dtype dtype);
double rwt_dtype_max(rw_dtype dtype);
double rwt_dtype_min_normal(rw_dtype dtype);

/* The distance between adjacent numbers of a float dtype around `value`, which is finite. */
double rwt_dtype_spacing(rw_dtype dtype, double value);

/* Element `i` of an array of any dtype; stores to a float dtype round to nearest even, those to an
 * 8-bit one saturate. */
double rwt_load(rw_dtype dtype, const void *data, int64_t i);
void rwt_store(rw_dtype dtype, void *data, int64_t i, double value);
/* `value` rounded to the dtype. */
double rwt_round(rw_dtype dtype, double value);

/* The larger of two errors; NaN, which fmax() ignores, is the largest. */
static inline double rwt_worse(double worst, double error) {
    return error > worst || error != error ? error : worst;
}

/* The results that `value` may round to if f32 arithmetic is off by 4 eps: the middle, and the
 * largest distance of a result from it. */
typedef struct rwt_rounded {
    double middle;
    double reach;
} rwt_rounded;

rwt_rounded rwt_round_near(rw_dtype dtype, double value);
int64_t rwt_load_id(rw_dtype dtype, const void *data, int64_t i);
void rwt_store_id(rw_dtype dtype, void *data, int64_t i, int64_t value);

/* Element `i` as raw bits. */
uint64_t rwt_load_bits(rw_dtype dtype, const void *data, int64_t i);

/* ---- cases --------------------------------------------------------------------------------- */

/* A case is a row of integers; each has a name and, if it is a choice, words for its values. */
typedef struct rwt_field {
    const char *name;
    int64_t fallback;         /* the value if a text does not name the field */
    const char *const *words; /* of the values 0, 1, ..., then NULL; NULL: a plain number */
} rwt_field;

#define RWT_MAX_FIELDS 64

/* A driver reads its case through a struct of int64_t with one member for each field. */
typedef struct rwt_case {
    int64_t values[RWT_MAX_FIELDS];
} rwt_case;

typedef enum rwt_tier {
    RWT_QUICK = 0, /* small; also under emulation and sanitizers */
    RWT_FULL,      /* the ordinary suite */
    RWT_LARGE      /* seconds, not milliseconds */
} rwt_tier;

/* Cases as text: `name=value` separated by commas; a value may be alternatives `a|b|c` or a range
 * `3..9`. A row is the cross product of its alternatives. */
typedef struct rwt_case_row {
    rwt_tier tier;
    const char *text; /* NULL ends the list */
} rwt_case_row;

/* A shape whose speed matters; `hot` ones stay in the cache between runs. */
typedef struct rwt_benchmark {
    const char *name; /* NULL ends the list */
    const char *text;
    bool cpu;
    bool gpu;
    bool hot;
} rwt_benchmark;

typedef struct rwt_driver rwt_driver;

typedef struct rwt_case_list {
    rwt_case *cases;
    size_t count;
    size_t capacity;
} rwt_case_list;

typedef struct rwt_case_options {
    rwt_tier tier;      /* the highest tier of rows */
    int64_t num_random; /* additional random cases; -1: the driver's default */
    uint64_t seed;      /* of the random cases */
    rwt_tier from;      /* the lowest tier of rows */
    int64_t share;      /* from 1: which of the shares */
    int64_t shares;     /* each case belongs to one of so many; 0: all cases */
} rwt_case_options;

/* Reads "I/N", the share I of N; false if the text is not that. */
bool rwt_share_parse(const char *text, rwt_case_options *options);

/* Every case of a driver; an invalid row ends the program with a sentence. */
rwt_case_list rwt_case_list_make(const rwt_driver *driver, const rwt_case_options *options);
void rwt_case_list_free(rwt_case_list *list);

/* Reads one case; false, with a sentence, if the text is not a valid case. */
bool rwt_case_parse(const rwt_driver *driver, const char *text, rwt_case *result,
                    rw_message *message);

/* The text of a case: the fields that differ from their fallback, and the seed. */
typedef struct rwt_case_text {
    char text[1024];
} rwt_case_text;

rwt_case_text rwt_case_print(const rwt_driver *driver, const rwt_case *c);

/* ---- jobs: a case with its buffers and their expected contents ---- */

#define RWT_MAX_BUFFERS 22

typedef enum rwt_expectation {
    RWT_UNCHANGED = 0, /* no bit changes */
    RWT_NEAR,          /* a float near `value` */
    RWT_NOT_FINITE,    /* NaN or Inf of either sign */
    RWT_EXACT          /* these bits */
} rwt_expectation;

typedef struct rwt_expected {
    union {
        double value;
        uint64_t bits;
    } u;
    double scale;
    rwt_expectation kind;
} rwt_expected;

typedef struct rwt_buffer {
    const char *name;
    rw_dtype dtype;
    int64_t elements;
    int64_t misalign;       /* elements from a 256-byte boundary to the first element */
    bool scratch;           /* contents are unspecified afterwards */
    void *initial;          /* contents before the operation */
    double *values;         /* `initial` of a float dtype, for references; NULL before these */
    rwt_expected *expected; /* one for each element; NULL: nothing may change */
} rwt_buffer;

typedef struct rwt_job {
    const rwt_driver *driver;
    rwt_case c;
    void *plan; /* the driver's data: views, ... */
    rwt_buffer buffers[RWT_MAX_BUFFERS];
    int num_buffers;
    rwt_random random;
    rw_fault fault; /* the next synchronize reports this; the operation is the driver's */
} rwt_job;

/* Fills the buffers of a case and computes the expected contents if requested. */
rwt_job *rwt_job_make(const rwt_driver *driver, const rwt_case *c, bool with_reference);
void rwt_job_free(rwt_job *job);

/* For drivers: adds a buffer, poisoned (NaN, or ids far outside any range). Returns its number. */
typedef struct rwt_buffer_spec {
    const char *name;
    rw_dtype dtype;
    int64_t elements;
    int64_t misalign;
    bool scratch;
} rwt_buffer_spec;

int rwt_buffer_add(rwt_job *job, const rwt_buffer_spec *spec);

typedef enum rwt_values {
    RWT_ORDINARY = 0, /* uniform in [-2, 2) */
    RWT_SPECIAL       /* with NaN, Inf, zeros of both signs, subnormals, the largest number */
} rwt_values;

void rwt_buffer_fill(rwt_job *job, int buffer, rwt_values values);

/* The initial value of an element on the device. */
static inline double rwt_buffer_get(const rwt_job *job, int number, int64_t element) {
    const rwt_buffer *buffer = &job->buffers[number];
    return buffer->values ? buffer->values[element]
                          : rwt_load(buffer->dtype, buffer->initial, element);
}

int64_t rwt_buffer_get_id(const rwt_job *job, int buffer, int64_t element);
void rwt_buffer_set(rwt_job *job, int buffer, int64_t element, double value);
void rwt_buffer_set_id(rwt_job *job, int buffer, int64_t element, int64_t id);

/* For references. |got - value| <= 4 eps max(|value|, scale), where eps is that of f32, in which
 * all arithmetic is done, plus half a unit in the last place of f16 and bf16 for the store. */
void rwt_expect_near(rwt_job *job, int buffer, int64_t element, double value, double scale);
/* Expects exactly the value rounded to the buffer's dtype; any NaN for a NaN. */
void rwt_expect_exact(rwt_job *job, int buffer, int64_t element, double value);
/* Expects NaN or Inf: for Inf times a number that may be rounded to 0. */
void rwt_expect_not_finite(rwt_job *job, int buffer, int64_t element);
void rwt_expect_id(rwt_job *job, int buffer, int64_t element, int64_t id);
void rwt_expect_bits(rwt_job *job, int buffer, int64_t element, uint64_t bits);
/* Expects the bits of element `from_element` of another buffer of this dtype. */
void rwt_expect_copy(rwt_job *job, int buffer, int64_t element, int from, int64_t from_element);
/* A token that is out of range; the lowest token counts, and of it the first report. */
void rwt_expect_fault(rwt_job *job, int64_t token, rw_fault_kind kind, int64_t id);

/* ---- views: tensors over buffers ------------------------------------------------------------- */

typedef enum rwt_stride_style {
    RWT_CONTIGUOUS = 0,
    RWT_GAPS,    /* unused elements between neighbours on every axis except the last */
    RWT_NEGATIVE /* with gaps, and every axis except the last has a negative stride */
} rwt_stride_style;

typedef struct rwt_view {
    int buffer; /* -1: absent */
    int64_t offset;
    int rank;
    int64_t shape[RW_MAX_RANK];
    int64_t stride[RW_MAX_RANK];
} rwt_view;

/* The order of `shape` in memory: order[0] is the outermost axis (NULL: in order). */
typedef struct rwt_layout {
    int rank;
    int64_t shape[RW_MAX_RANK];
    const int *order;
    rwt_stride_style style;
} rwt_layout;

/* Adds a buffer with a view of it. The last axis has gaps or a negative stride only for ids. */
rwt_view rwt_view_add(rwt_job *job, const rwt_layout *layout, rwt_buffer_spec spec);

extern const rwt_view rwt_view_absent;

/* The element of the buffer at an index of the view. */
static inline int64_t rwt_view_at(const rwt_view *view, int64_t i, int64_t j, int64_t k,
                                  int64_t l) {
    return view->offset + i * view->stride[0] + j * view->stride[1] + k * view->stride[2] +
           l * view->stride[3];
}

/* ---- bindings: a job on a context ------------------------------------------------------------ */

/* One copy of a job's buffers in device memory. */
typedef struct rwt_set {
    void *allocation[RWT_MAX_BUFFERS];
    void *data[RWT_MAX_BUFFERS]; /* the first element */
    void *args;                  /* the driver's data: arguments over these buffers */
} rwt_set;

typedef struct rwt_binding {
    const rwt_job *job;
    rw_context *context;
    void *objects[2]; /* the driver's data: tables */
    int num_sets;
    rwt_set *sets;
} rwt_binding;

rw_tensor rwt_tensor(const rwt_job *job, const rwt_set *set, const rwt_view *view);

/* The same memory without the first axis; an absent tensor stays absent. */
rw_tensor rwt_without_batch(rw_tensor tensor);

/* Allocates `num_sets` sets, creates the driver's objects and uploads everything. False, with a
 * sentence, on failure; the binding must be closed in any case. */
bool rwt_binding_open(rwt_binding *binding, const rwt_job *job, rw_context *context, int num_sets,
                      rw_message *message);
bool rwt_binding_upload(const rwt_binding *binding, int set, rw_message *message);
void rwt_binding_close(rwt_binding *binding);
rw_status rwt_binding_run(const rwt_binding *binding, int set);

/* Bytes of a job's buffers on the device. */
int64_t rwt_job_storage_bytes(const rwt_job *job);

/* ---- drivers ---- */

struct rwt_driver {
    const char *name;
    const rwt_field *fields; /* among them "seed" */
    size_t num_fields;
    const rwt_case_row *rows;
    const char *random; /* a row from which random cases are drawn */
    int64_t num_random; /* default number of random cases */
    const rwt_benchmark *benchmarks;
    size_t plan_size;
    size_t args_size;
    const char *(*invalid)(const rwt_case *c); /* why a case is invalid, or NULL */
    void (*fill)(rwt_job *job);
    void (*reference)(rwt_job *job);
    rw_status (*open)(rwt_binding *binding); /* NULL: the operation has no objects */
    void (*close)(rwt_binding *binding);
    void (*bind)(const rwt_job *job, rwt_set *set); /* fills set->args */
    rw_status (*run)(const rwt_binding *binding, const void *args);
    double (*bytes)(const rwt_job *job); /* each input read once, each output written once */
    double (*flops)(const rwt_job *job); /* NULL: none */
};

/* Every driver, in the order of ops.def, then NULL. */
extern const rwt_driver *const rwt_drivers[];
const rwt_driver *rwt_driver_find(const char *name);

/* ---- running --------------------------------------------------------------------------------- */

/* A way to run: a backend and, on the CPU, an ISA. The results of its contexts must have the same
 * bits; on the CPU they have one thread, a pool of 3 tasks in place of OpenMP, and 5 threads, on a
 * GPU there is one context, used twice. */
#define RWT_MAX_RUNS 3

typedef struct rwt_target {
    char name[32];       /* "cpu baseline", "hip emulated" */
    const char *backend; /* for the command that repeats a failure */
    rw_context *runs[RWT_MAX_RUNS];
    int num_runs;
} rwt_target;

#define RWT_MAX_TARGETS 8

typedef struct rwt_target_list {
    rwt_target targets[RWT_MAX_TARGETS];
    int count;
    rw_message skipped[RWT_MAX_TARGETS]; /* reasons why backends are not included */
    int num_skipped;
} rwt_target_list;

/* Opens every target of one backend, or of all usable backends (RW_BACKEND_AUTO), or of the one
 * that ROPEWALK_BACKEND names (RW_BACKEND_DEFAULT). `device` is used for RW_BACKEND_HIP. */
bool rwt_targets_open(rwt_target_list *list, rw_backend_kind kind, int device, rw_message *message);
void rwt_targets_close(rwt_target_list *list);

typedef struct rwt_outcome {
    bool failed;
    bool unsupported;
    double worst; /* largest error, in eps of the dtype times the scale */
    char reason[512];
} rwt_outcome;

/* The buffers' bytes after a run. */
typedef struct rwt_images {
    void *data[RWT_MAX_BUFFERS];
} rwt_images;

void rwt_images_free(rwt_images *images);

/* Runs a job on a target and checks the results; `images` receives the results of the first run. */
rwt_outcome rwt_job_run(const rwt_job *job, const rwt_target *target, rwt_images *images);

/* Compares the results of two backends: they may differ by at most 0.1% of the scale (bf16: one
 * unit in the last place, which is more). */
rwt_outcome rwt_images_compare(const rwt_job *job, const rwt_images *a, const rwt_images *b);

/* The results of a target over the cases of one operation. */
typedef struct rwt_tally {
    int64_t cases;
    int64_t failures;
    int64_t unsupported;
    double worst;
    rwt_case worst_case;
} rwt_tally;

typedef struct rwt_suite {
    const rwt_driver *driver;
    const rwt_target_list *targets;
    rwt_case_list cases;
    void (*failed)(void *user, const char *line);         /* a failure's sentence and repro line */
    void (*progress)(void *user, size_t done, size_t of); /* NULL: none */
    void *user;
    rwt_tally tallies[RWT_MAX_TARGETS];
    int64_t cross_failures;
    double cross_worst; /* relative to the scale */
} rwt_suite;

/* Runs every case on every target. True if none failed. */
bool rwt_suite_run(rwt_suite *suite);

/* ---- time ---- */

typedef struct rwt_timing {
    bool brief;     /* set by the caller: few runs, on one set of buffers: that it works */
    double seconds; /* of a run, median */
    double bytes;
    double flops;
    double copy_seconds;  /* a plain copy that moves the same bytes; 0: too short to measure */
    double scale_seconds; /* CPU: scaling the same bytes in place; 0 on a GPU */
    int num_sets;
    uint64_t moved_bytes; /* between host and device during the timed runs */
} rwt_timing;

/* Times a benchmark on a context; reads timing->brief. False, with a sentence, if it cannot run. */
bool rwt_benchmark_time(const rwt_driver *driver, const rwt_benchmark *benchmark,
                        rw_context *context, rwt_timing *timing, rw_message *message);

/* True for a context on a real GPU. */
bool rwt_context_is_gpu(const rw_context *context);

/* Monotonic, in seconds. */
double rwt_now(void);

#ifdef __cplusplus
}
#endif
#endif
