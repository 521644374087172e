/* A config.json. One that begins with a space is read with a pairing, for unknown model types. */
#include <math.h>

#include <ropewalk/io.h>

#include "fuzz.h"

#define MAX_FREQUENCIES 4096

/* The text that a function returns is valid. */
static void require_text(const char *text) {
    FUZZ_REQUIRE(text && strlen(text) < 4096);
}

static void check_rope(const rw_model_rope *rope) {
    static double inv_freq[MAX_FREQUENCIES];
    rw_rope_frequency_list list = {.capacity = 0};
    rw_message message;
    FUZZ_REQUIRE(rope->spec.head_dim > 0 && rope->spec.rotary_dim >= 0);
    require_text(rw_rope_type_name(rope->spec.type));
    require_text(rw_rope_pairing_name(rope->spec.pairing));
    FUZZ_REQUIRE(!rope->learned_scale || strlen(rope->learned_scale) > 0);
    FUZZ_REQUIRE(rw_rope_frequencies(&rope->spec, 0, &list, &message) == RW_OK);
    FUZZ_REQUIRE(list.count > 0 && isfinite(list.attention_factor));
    if (list.count > MAX_FREQUENCIES)
        return;
    list = (rw_rope_frequency_list){.inv_freq = inv_freq, .capacity = MAX_FREQUENCIES};
    FUZZ_REQUIRE(rw_rope_frequencies(&rope->spec, 0, &list, &message) == RW_OK);
    for (int64_t i = 0; i < list.count; i++)
        FUZZ_REQUIRE(isfinite(inv_freq[i]));
}

static void find_rope(const rw_model *model, const char *type) {
    const rw_model_rope *rope;
    rw_message message = {""};
    const rw_status status = rw_model_find_rope(model, type, &rope, &message);
    FUZZ_REQUIRE((status == RW_OK) == (rope != NULL));
    if (status != RW_OK)
        fuzz_require_sentence(message.text);
}

static void check_model(const rw_model *model) {
    const rw_model_info *info = rw_model_get_info(model);
    require_text(info->model_type);
    for (int32_t i = 0; i < info->num_ropes; i++)
        check_rope(rw_model_get_rope(model, i));
    FUZZ_REQUIRE(!rw_model_get_rope(model, info->num_ropes) && !rw_model_get_rope(model, -1));
    for (int64_t i = 0; i < info->num_layers; i++) {
        const rw_model_layer *layer = rw_model_get_layer(model, i);
        require_text(layer->type);
        FUZZ_REQUIRE(layer->has_rope != 1 ? layer->rope == -1
                                          : layer->rope >= 0 && layer->rope < info->num_ropes);
        if (i < 4)
            find_rope(model, layer->type);
    }
    FUZZ_REQUIRE(!rw_model_get_layer(model, info->num_layers) && !rw_model_get_layer(model, -1));
    find_rope(model, NULL);
    find_rope(model, "full_attention");
    find_rope(model, "no such type");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const rw_rope_pairing half = RW_ROPE_HALF;
    const rw_model_source source = {.path = "config.json",
                                    .text = size > 0 ? (const char *)data : "",
                                    .text_bytes = (int64_t)size,
                                    .pairing = size > 0 && data[0] == ' ' ? &half : NULL};
    rw_model *model;
    rw_message message = {""};
    const rw_status status = rw_model_read(&source, &model, &message);
    if (status == RW_OK) {
        check_model(model);
        rw_model_free(model);
        return 0;
    }
    FUZZ_REQUIRE(status == RW_INVALID_ARGUMENT && !model);
    fuzz_require_sentence(message.text);
    return 0;
}
