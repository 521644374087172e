/* Common to the tests of models. */
#ifndef RWT_MODEL_SUPPORT_H
#define RWT_MODEL_SUPPORT_H

#include "harness/io_support.h"

#include "model_config.h"

/* Parses `source.text`; its name and length are set here. */
rw_status rwt_parse_model(rwi_model_config_text source, rwi_model_config *config,
                          rw_message *message);

/* Fails if the text is not a valid config; the caller must free the result. */
rwi_model_config rwt_read_model(const char *text, const char *layer_type);

/* Fails unless it is refused with a sentence that contains `word`. */
void rwt_assert_model_refused(const rwi_model_config_text *source, const char *word);

void rwt_assert_near(double got, double expected);

/* Frequency `at`, and the attention factor if `factor` is not NULL. */
double rwt_model_frequency(const rwi_model_config *config, int64_t seq_len, int at, double *factor);

#endif
