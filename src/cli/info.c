/* ropewalk info: the backends of this build and the devices of this host. */
#include <stdio.h>

#include "cli.h"

#ifdef CLI_HAS_HIP
#define HIP_BUILT true
#else
#define HIP_BUILT false
#endif

/* One device, or the reason why it cannot be opened. */
static json_t *describe_device(rw_backend_kind kind, int index) {
    rw_context_options options = {.backend = kind, .device = index};
    rw_context *context;
    rw_message message;
    if (rw_context_create(&options, &context, &message) != RW_OK)
        return json_pack("{s:i, s:s}", "index", index, "why", message.text);
    rw_context_info info = rw_context_get_info(context);
    json_t *device = cli_describe_context(&info);
    rw_context_destroy(context);
    return device;
}

static json_t *describe_backend(const char *name, rw_backend_kind kind, bool built) {
    rw_backend_probe_result probe = rw_backend_probe(kind);
    json_t *devices = json_array();
    for (int i = 0; probe.usable && i < probe.device_count; i++)
        json_array_append_new(devices, describe_device(kind, i));
    return json_pack("{s:s, s:b, s:b, s:b, s:b, s:s, s:s, s:o}", "name", name, "built", built,
                     "found", probe.found, "usable", probe.usable, "automatic", probe.automatic,
                     "platform", probe.platform, "why", probe.why.text, "devices", devices);
}

/* The backend that the options select on this host; `status` receives the outcome. */
static json_t *describe_choice(const rw_context_options *options, rw_status *status) {
    rw_context *context;
    rw_message message = {""};
    *status = rw_context_create(options, &context, &message);
    if (*status != RW_OK)
        return json_pack("{s:n, s:s}", "backend", "why", message.text);
    rw_context_info info = rw_context_get_info(context);
    json_t *choice = cli_describe_context(&info);
    rw_context_destroy(context);
    return choice;
}

static const char *text_of(const json_t *object, const char *key) {
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

static void print_device(const json_t *device) {
    int index = (int)json_integer_value(json_object_get(device, "index"));
    if (json_object_get(device, "device"))
        printf("    %d: %s\n", index, text_of(device, "device"));
    else
        printf("    %d: not usable: %s\n", index, text_of(device, "why"));
}

static void print_backend(const json_t *backend) {
    bool usable = json_is_true(json_object_get(backend, "usable"));
    printf("  %-4s %s, %s, %s", text_of(backend, "name"),
           json_is_true(json_object_get(backend, "built")) ? "built" : "not built",
           json_is_true(json_object_get(backend, "found")) ? "found" : "not found",
           usable ? "usable" : "not usable");
    if (text_of(backend, "platform")[0])
        printf(", %s", text_of(backend, "platform"));
    if (usable && !json_is_true(json_object_get(backend, "automatic")))
        printf(", never chosen by auto");
    if (text_of(backend, "why")[0])
        printf(": %s", text_of(backend, "why"));
    putchar('\n');
    size_t i;
    json_t *device;
    json_array_foreach(json_object_get(backend, "devices"), i, device) print_device(device);
}

static void print_choice(const char *label, const json_t *choice) {
    if (json_is_null(json_object_get(choice, "backend")))
        printf("%-9s nothing: %s\n", label, text_of(choice, "why"));
    else
        printf("%-9s %s:%d, %s, %s\n", label, text_of(choice, "backend"),
               (int)json_integer_value(json_object_get(choice, "index")),
               text_of(choice, "platform"), text_of(choice, "device"));
}

static void print_text(const json_t *report) {
    size_t i;
    json_t *backend;
    printf("ropewalk %s\nbackends\n", text_of(report, "version"));
    json_array_foreach(json_object_get(report, "backends"), i, backend) print_backend(backend);
    print_choice("auto", json_object_get(report, "auto"));
    print_choice("selected", json_object_get(report, "selected"));
}

static int run(const cli_options *options) {
    rw_status automatic, status;
    rw_context_options auto_options = {.backend = RW_BACKEND_AUTO};
    rw_context_options own_options = cli_context_options(options);
    json_t *report = json_pack("{s:s, s:[o, o], s:o, s:o}", "version", rw_version(), "backends",
                               describe_backend("cpu", RW_BACKEND_CPU, true),
                               describe_backend("hip", RW_BACKEND_HIP, HIP_BUILT), "auto",
                               describe_choice(&auto_options, &automatic), "selected",
                               describe_choice(&own_options, &status));
    char why[sizeof(rw_message)];
    snprintf(why, sizeof why, "%s", text_of(json_object_get(report, "selected"), "why"));
    int exit_status = CLI_OK;
    if (options->json) {
        exit_status = cli_print_json(report);
    } else {
        print_text(report);
        json_decref(report);
    }
    return exit_status == CLI_OK && status != RW_OK ? cli_fail(CLI_FAILED, "%s", why) : exit_status;
}

const cli_command cli_info = {
    .name = "info",
    .summary = "Print the version, the backends and their devices, and the choice of auto",
    .options = CLI_OPTION_BACKEND | CLI_OPTION_JSON,
    .operands = "",
    .details = "\"selected\" is the backend that --backend, else ROPEWALK_BACKEND, selects on this "
               "host.\n",
    .run = run,
};
