#include "harness/model_support.h"

#include <math.h>
#include <string.h>

rw_status rwt_parse_model(rwi_model_config_text source, rwi_model_config *config,
                          rw_message *message) {
    source.source = "config.json";
    source.length = strlen(source.text);
    message->text[0] = '\0';
    return rwi_model_config_parse(&source, config, message);
}

rwi_model_config rwt_read_model(const char *text, const char *layer_type) {
    rwi_model_config config;
    rw_message message;
    if (rwt_parse_model((rwi_model_config_text){.text = text, .layer_type = layer_type}, &config,
                        &message) != RW_OK)
        fail_msg("%s: %s", text, message.text);
    return config;
}

void rwt_assert_model_refused(const rwi_model_config_text *source, const char *word) {
    rwi_model_config config;
    rw_message message;
    if (rwt_parse_model(*source, &config, &message) != RW_INVALID_ARGUMENT)
        fail_msg("accepted %s", source->text);
    rwt_assert_sentence(message.text);
    if (!strstr(message.text, word))
        fail_msg("%s, expected \"%s\"", message.text, word);
    assert_null(config.factors);
    assert_null(config.layers);
}

void rwt_assert_near(double got, double expected) {
    if (!(fabs(got - expected) <= 1e-6 * fabs(expected)))
        fail_msg("got %.17g, expected %.17g", got, expected);
}

double rwt_model_frequency(const rwi_model_config *config, int64_t seq_len, int at,
                           double *factor) {
    double inv_freq[512];
    rw_message message;
    rw_rope_frequency_list list = {.inv_freq = inv_freq, .capacity = 512};
    if (rw_rope_frequencies(&config->spec, seq_len, &list, &message) != RW_OK)
        fail_msg("%s", message.text);
    assert_in_range(at, 0, list.count - 1);
    if (factor)
        *factor = list.attention_factor;
    return inv_freq[at];
}
