/* Attention patterns: data that defines which keys a query sees, with one predicate for all
 * operations.
 *
 * Query i has a position p:
 *
 *   RW_ALIGN_BOTTOM_RIGHT  p = i + seq_k - seq_q       last query aligned with the last key
 *   RW_ALIGN_TOP_LEFT      p = i                       first query aligned with the first key
 *   RW_ALIGN_KEY_END       p = i + key_end[b] - seq_q  last query aligned with the last key of its
 *                                                      sequence
 *
 * RW_ALIGN_KEY_END is for queries at the end of sequences that occupy part of a cache of seq_k
 * keys. The query sees key j where
 *
 *   padding(j) AND document(p, j) AND bit(i, j)
 *   AND ( j < prefix  OR  ( causal(p, j) AND ( window(p, j) OR global(p, j) ) ) )
 *
 * A part that is absent is true; an absent prefix has length 0, and globals have an effect only
 * with a window.
 *
 *   padding    key_begin[b] <= j < key_end[b]
 *   document   cu_seqlens[n] <= p, j < cu_seqlens[n + 1] for one n
 *   bit        the bit (i, j) of `bits` is set, mask(i, j) does not hide, function(i, j) is true
 *   causal     j <= p
 *   window     p - left <= j <= p + right
 *   global     p or j is a global position
 *
 * p may be negative: then causal hides all keys.
 */
#ifndef ROPEWALK_PATTERN_H
#define ROPEWALK_PATTERN_H

#include <ropewalk/context.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum rw_alignment {
    RW_ALIGN_BOTTOM_RIGHT = 0, /* the last query is aligned with the last key */
    RW_ALIGN_TOP_LEFT,         /* the first query is aligned with the first key */
    RW_ALIGN_KEY_END           /* the last query is aligned with the last key before key_end */
} rw_alignment;

/* One side of the window; unbounded if zeroed. `keys` other than 0 without `given` is refused. */
typedef struct rw_window_side {
    bool given;
    int64_t keys; /* not negative; 0: no key on this side of the query's position */
} rw_window_side;

/* One pair: query i and key j of sequence b. */
typedef struct rw_pattern_pair {
    int64_t b;
    int64_t i;
    int64_t j;
} rw_pattern_pair;

/* Zero means absent; in a zeroed pattern every query sees every key.
 *
 * The operation determines the lengths; seq_q and seq_k are below 2^31. Tensors are in the memory
 * of the context's device (for the functions at the end, which have no context: in host memory):
 *
 * prefix      i32 or i64 [batch], not negative; may exceed seq_k. Absent: prefix_length for every
 *             sequence, not negative; at most one of the two may be given
 * globals     u8 [ceil(seq_k / 8)]: bit j % 8 of byte j / 8 is set where j is a global position
 *             (rw_pattern_globals() converts a list)
 * cu_seqlens  i32 or i64 [documents + 1] or [batch, documents + 1], nondecreasing from 0 to seq_k.
 *             A query with p outside [0, seq_k) is in no document
 * key_begin   i32 or i64 [batch]; absent: 0
 * key_end     i32 or i64 [batch], key_begin <= key_end <= seq_k; absent: seq_k; required by
 *             RW_ALIGN_KEY_END
 * bits        u8 [seq_q, ceil(seq_k / 8)] or [batch, seq_q, ceil(seq_k / 8)], lowest bit first; an
 *             axis of 1, except the last, is broadcast
 * mask        f32, f16, bf16 or u8 [seq_q, seq_k] or [batch, seq_q, seq_k]: hidden where -inf, of
 *             u8 (bool) where 0; other values are ignored. An axis of 1, except the last, is
 *             broadcast. A mask to be added to the scores is a separate argument of the operation
 * function    the caller's; must be thread-safe. CPU only: for other backends convert it to `bits`
 *             with rw_pattern_bake()
 *
 * If a value on the device is invalid (a negative prefix, key_end before key_begin, cu_seqlens that
 * do not cover p), the rows of its query are not written, and the next rw_synchronize() returns
 * RW_OUT_OF_RANGE with the token b * seq_q + i and the value.
 */
typedef struct rw_pattern {
    bool causal;
    rw_alignment alignment;
    rw_window_side left;
    rw_window_side right;
    int64_t prefix_length;
    rw_tensor prefix;
    rw_tensor globals;
    rw_tensor cu_seqlens;
    rw_tensor key_begin;
    rw_tensor key_end;
    rw_tensor bits;
    rw_tensor mask;
    bool (*function)(void *user, const rw_pattern_pair *pair);
    void *function_user;
} rw_pattern;

/* ---- on the device --------------------------------------------------------------------------
 *
 * Stream-ordered: allocate nothing, move nothing between host and device. Return RW_OK,
 * RW_INVALID_ARGUMENT, RW_UNSUPPORTED (a dtype; a function on another backend than the CPU) or
 * RW_DEVICE_ERROR.
 */

/* out[b, i, j] = 0 where query i of sequence b sees key j, else -inf.
 *
 * out  f32, f16 or bf16 [seq_q, seq_k] or [batch, seq_q, seq_k], any strides
 */
RW_API rw_status rw_pattern_fill(rw_context *context, const rw_pattern *pattern,
                                 const rw_tensor *out);

/* Bit j % 8 of out[b, i, j / 8] = 1 where query i of sequence b sees key j, else 0; bits past seq_k
 * are 0.
 *
 * out    u8 [seq_q, ceil(seq_k / 8)] or [batch, seq_q, ceil(seq_k / 8)], any strides
 * seq_k  the number of keys, which the shape of `out` does not determine
 */
RW_API rw_status rw_pattern_fill_bits(rw_context *context, const rw_pattern *pattern, int64_t seq_k,
                                      const rw_tensor *out);

/* The ids of a pattern (GLM's table), for the position pos = s + offset or, with cu_seqlens, the
 * position within its document; G contains positions s + offset in both cases:
 *
 *   RW_PATTERN_IDS_SEQUENTIAL    pos                              causal, bidirectional
 *   RW_PATTERN_IDS_LOCAL         pos - w where pos >= w, else 0   a local window w
 *   RW_PATTERN_IDS_GLOBAL_LOCAL  pos where it is in G, else pos mod w
 *   RW_PATTERN_IDS_CUSTOM        table[b, pos], or function(b, pos)
 */
typedef enum rw_pattern_ids {
    RW_PATTERN_IDS_SEQUENTIAL = 0,
    RW_PATTERN_IDS_LOCAL,
    RW_PATTERN_IDS_GLOBAL_LOCAL,
    RW_PATTERN_IDS_CUSTOM
} rw_pattern_ids;

/* Arguments:
 *
 * out         i32 or i64 [seq] or [batch, seq], any strides
 * window      w: at least 0 for LOCAL, at least 1 for GLOBAL_LOCAL, else ignored
 * globals     GLOBAL_LOCAL: u8, a bit for each position, as in rw_pattern; positions past the last
 *             bit are not global
 * cu_seqlens  i32 or i64 [documents + 1] or [batch, documents + 1]; absent: one document. They
 *             must cover s + offset; the id of a token in no document is not written, and the token
 *             is reported
 * table       CUSTOM: i32 or i64 [positions] or [batch, positions]; the id of a token with pos
 *             outside it is not written, and the token is reported
 * function    CUSTOM, instead of the table: the caller's, as in rw_pattern; CPU only
 * offset      not negative
 */
typedef struct rw_pattern_positions_args {
    rw_tensor out;
    rw_pattern_ids ids;
    int64_t window;
    int64_t offset;
    rw_tensor globals;
    rw_tensor cu_seqlens;
    rw_tensor table;
    int64_t (*function)(void *user, int64_t b, int64_t pos);
    void *function_user;
} rw_pattern_positions_args;

RW_API rw_status rw_pattern_positions(rw_context *context, const rw_pattern_positions_args *args);

/* ---- on the host: no context, synchronous, a sentence in `message` (may be NULL) on failure -----
 *
 * Return RW_OK, RW_INVALID_ARGUMENT or RW_OUT_OF_RANGE (what a kernel would report). On failure
 * nothing is written.
 */

/* The lengths for which a pattern is evaluated. */
typedef struct rw_pattern_shape {
    int64_t batch;
    int64_t seq_q;
    int64_t seq_k;
} rw_pattern_shape;

/* Whether query pair->i sees key pair->j. */
typedef struct rw_pattern_question {
    rw_pattern_shape shape;
    rw_pattern_pair pair;
} rw_pattern_question;

RW_API rw_status rw_pattern_visible(const rw_pattern *pattern, const rw_pattern_question *question,
                                    bool *visible, rw_message *message);

/* Whether every pair of a rectangle is visible, some, or none. RW_TILE_ALL and RW_TILE_NONE are
 * exact; RW_TILE_SOME is also returned where an exact answer would require testing every pair
 * (bits, a mask, a function, or a document that ends inside). An empty rectangle is RW_TILE_NONE.
 */
typedef enum rw_tile {
    RW_TILE_NONE = 0,
    RW_TILE_SOME,
    RW_TILE_ALL
} rw_tile;

/* Queries [i_begin, i_end) x keys [j_begin, j_end) of sequence b. */
typedef struct rw_pattern_rectangle {
    rw_pattern_shape shape;
    int64_t b;
    int64_t i_begin;
    int64_t i_end;
    int64_t j_begin;
    int64_t j_end;
} rw_pattern_rectangle;

RW_API rw_status rw_pattern_ask_tile(const rw_pattern *pattern,
                                     const rw_pattern_rectangle *rectangle, rw_tile *tile,
                                     rw_message *message);

/* Converts a pattern, including the caller's function, to a bitmask in host memory, which can be
 * copied to another backend: rw_pattern_fill_bits() on the host.
 *
 * bits  u8 [shape.batch, seq_q, ceil(seq_k / 8)], contiguous, owned by the caller; NULL if empty
 */
RW_API rw_status rw_pattern_bake(const rw_pattern *pattern, const rw_pattern_shape *shape,
                                 uint8_t *bits, rw_message *message);

/* Converts global positions to bits for rw_pattern.globals.
 *
 * positions  [count], in any order, may be repeated; each in [0, seq_k)
 * bits       u8 [ceil(seq_k / 8)], owned by the caller
 */
typedef struct rw_pattern_globals_list {
    const int64_t *positions;
    int64_t count;
    int64_t seq_k;
} rw_pattern_globals_list;

RW_API rw_status rw_pattern_globals(const rw_pattern_globals_list *list, uint8_t *bits,
                                    rw_message *message);

#ifdef __cplusplus
}
#endif
#endif
