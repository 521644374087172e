/* Position ids, computed on the device.
 *
 * Every generator writes `out`, i32 or i64, any strides; inputs are i32 or i64, not necessarily the
 * same, in device memory. Stream-ordered: allocates nothing, moves nothing between host and device.
 * Returns RW_OK, RW_INVALID_ARGUMENT, RW_UNSUPPORTED or RW_DEVICE_ERROR. If an input value is
 * invalid (a negative length, an id that `out` cannot represent), the ids of its tokens are not
 * written, and the next rw_synchronize() returns RW_OUT_OF_RANGE with the token and the value.
 */
#ifndef ROPEWALK_POSITIONS_H
#define ROPEWALK_POSITIONS_H

#include <ropewalk/context.h>

#ifdef __cplusplus
extern "C" {
#endif

/* out[b, s] = s + offset + offsets[b]
 *
 * out      [batch, seq]
 * offsets  [batch], or absent
 */
typedef struct rw_positions_sequential_args {
    rw_tensor out;
    rw_tensor offsets;
    int64_t offset;
} rw_positions_sequential_args;

RW_API rw_status rw_positions_sequential(rw_context *context,
                                         const rw_positions_sequential_args *args);

/* Rows padded on the left; ids start after the padding:
 * out[b, s] = s - padding[b] where s >= padding[b], else padding_id
 *
 * out      [batch, seq]
 * padding  [batch], 0 <= padding[b]
 */
typedef struct rw_positions_left_padded_args {
    rw_tensor out;
    rw_tensor padding;
    int64_t padding_id;
} rw_positions_left_padded_args;

RW_API rw_status rw_positions_left_padded(rw_context *context,
                                          const rw_positions_left_padded_args *args);

/* Documents packed in one row; ids restart in each:
 * out[t] = t - cu_seqlens[n] for cu_seqlens[n] <= t < cu_seqlens[n + 1]
 *
 * out         [tokens]
 * cu_seqlens  [documents + 1], nondecreasing from 0 to tokens; the id of a token in no document is
 *             not written, and the token is reported
 */
typedef struct rw_positions_packed_args {
    rw_tensor out;
    rw_tensor cu_seqlens;
} rw_positions_packed_args;

RW_API rw_status rw_positions_packed(rw_context *context, const rw_positions_packed_args *args);

/* The start of the segment after a grid of t x h x w tokens. The two values differ for videos with
 * more frames than rows and columns: (t - 1) * step >= max(h, w).
 *   RW_MROPE_ADVANCE_GRID     start + max(h, w): ids of frames may be repeated
 *                             transformers 5 (compared with 5.24),
 *                             src/transformers/models/qwen2_vl/modeling_qwen2_vl.py,
 *                             qwen2_5_vl/modeling_qwen2_5_vl.py, get_rope_index: current_pos
 *   RW_MROPE_ADVANCE_LARGEST  the largest id so far plus 1
 *                             transformers 4, the same functions: st_idx; the Qwen2-VL paper,
 *                             arXiv:2409.12191, section 2.1
 */
typedef enum rw_mrope_advance {
    RW_MROPE_ADVANCE_GRID = 0,
    RW_MROPE_ADVANCE_LARGEST
} rw_mrope_advance;

/* M-RoPE ids of text, images and videos (Qwen2-VL, Qwen2.5-VL, Qwen3-VL).
 *
 * A sequence is a list of segments. With `start` the next free id, token n of
 *   a text of t tokens (h = w = 0)  has the t, h, w ids start + n, three times;
 *   a grid of t x h x w tokens      has start + trunc((n / (h*w)) * step),
 *                                       start + (n / w) % h and start + n % w;
 * the next segment starts at start + t after a text, and as `advance` defines after a grid. Tokens
 * after the last segment continue as text. rope_delta[b] = largest id in the segments + 1 - number
 * of tokens in them: the value to add to a token's index in decode.
 *
 * out         [3, batch, seq]
 * segments    [batch, num_segments, 3]: t, h, w after spatial merging; one without tokens is empty
 * steps       f32 [batch, num_segments]: ids between frames (second_per_grid_t *
 *             tokens_per_second), 0 to 65536; absent: 1
 * advance     as in the model's own code
 * rope_delta  output, i32 or i64 [batch]; may be absent; reported as token batch * seq + b
 */
typedef struct rw_positions_mrope_args {
    rw_tensor out;
    rw_tensor segments;
    rw_tensor steps;
    rw_mrope_advance advance;
    rw_tensor rope_delta;
} rw_positions_mrope_args;

RW_API rw_status rw_positions_mrope(rw_context *context, const rw_positions_mrope_args *args);

/* GLM's two ids of a token (GLM-130B, ChatGLM-6B), for a context of c tokens with the mask at m:
 *   out[0, b, s] = s        for s < c, else m          the position
 *   out[1, b, s] = 0        for s < c, else s - c + 1  the position in the generated block
 *
 * out             [2, batch, seq]
 * context_length  [batch]: c, the index of the start-of-piece token, 0 <= c
 * mask_position   [batch]: m, 0 <= m
 */
typedef struct rw_positions_glm_args {
    rw_tensor out;
    rw_tensor context_length;
    rw_tensor mask_position;
} rw_positions_glm_args;

RW_API rw_status rw_positions_glm(rw_context *context, const rw_positions_glm_args *args);

#ifdef __cplusplus
}
#endif
#endif
