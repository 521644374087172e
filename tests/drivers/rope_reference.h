/* The frequencies of every rope type and the axis of every frequency: naive, in double, implemented
 * from the papers and from Hugging Face's modeling_rope_utils.py; independent of kernels/ and src/.
 */
#ifndef RWT_ROPE_REFERENCE_H
#define RWT_ROPE_REFERENCE_H

#include <ropewalk/rope.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Writes inv_freq[0 .. count-1] and returns count = d/2; *attention_factor receives the attention
 * factor. */
int64_t rwt_rope_frequencies(const rw_rope_spec *spec, int64_t seq_len, double *inv_freq,
                             double *attention_factor);

/* The number of ids of a token. */
int64_t rwt_rope_num_axes(const rw_rope_spec *spec);

/* The id that frequency i of `count` uses. */
int64_t rwt_rope_axis(const rw_rope_spec *spec, int64_t i, int64_t count);

#ifdef __cplusplus
}
#endif
#endif
