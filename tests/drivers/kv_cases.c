/* The cases of rw_kv_append and rw_rope_append. */
#include "drivers/kv_case.h"

const char *kv_invalid(const rwt_case *row) {
    const kv_case *c = kv_case_of(row);
    bool of_pages = c->cache_fault == KV_FAULT_PAGE_LOW || c->cache_fault == KV_FAULT_PAGE_HIGH;
    bool of_slots = c->cache_fault == KV_FAULT_SLOT_LOW || c->cache_fault == KV_FAULT_SLOT_HIGH;
    bool of_bounds = c->cache_fault == KV_FAULT_BOUND;
    if (c->batch < 0 || c->seq < 0 || c->heads < 0 || c->head_dim < 0 || c->v_dim < 0 ||
        c->misalign < 0 || c->cache_misalign < 0)
        return "a length is negative";
    if (c->page_size < 1)
        return "page_size must be at least 1";
    if (c->cache_offset < 0 || (!c->ring && c->seq + c->cache_offset > c->max_seq))
        return "the tokens must fit into max_seq";
    if (c->ring < 0 || c->ring > c->max_seq)
        return "ring is within max_seq";
    if (c->ring && (of_pages || c->cache_fault == KV_FAULT_PAST_END))
        return "a ring has no end, and may need no token's page";
    if (c->sequences < 0 || c->padding < 0 || c->padding > c->seq || (c->padding && !c->sequences))
        return "padding is behind packed sequences";
    if (c->sequences && c->layout != KV_LAYOUT_THD)
        return "sequences are packed: layout=thd";
    if (c->slots && (c->paged || c->cache_offsets || c->cache_offset || c->ring || c->sequences))
        return "slots stand in place of positions";
    if (c->no_v && c->fused)
        return "fused k and v are both given";
    if (of_slots != (c->slots && c->cache_fault) || (of_slots && c->batch * c->seq == 0))
        return "a fault of slots needs slots and a token, and slots have no other";
    if (of_bounds && (!c->sequences || c->padding == c->seq))
        return "a fault of bounds needs sequences and a token";
    if (c->sequences && c->cache_fault && !of_bounds)
        return "sequences may be empty, so that their positions have no fault";
    if (c->layout == KV_LAYOUT_THD && c->batch != 1)
        return "layout=thd has no batch";
    if (c->fused && c->head_dim != c->v_dim)
        return "fused k and v are equally wide";
    if (c->cache_fault && !of_slots && !of_bounds &&
        (!c->cache_offsets || c->batch == 0 || c->seq == 0))
        return "a fault needs cache_offsets and a token";
    if (c->scales && !c->cache_dtype)
        return "scales are those of a cache of 8 bits";
    if (of_pages && !c->paged)
        return "a fault of pages needs pages";
    return NULL;
}

const char *rope_append_invalid(const rwt_case *row) {
    const rope_append_case *c = rope_append_case_of(row);
    int64_t d = rope_append_rotary_width(c);
    const char *why = kv_invalid(row);
    if (why)
        return why;
    if (c->q_heads < 0 || c->max_positions < 1)
        return "q_heads is negative, or max_positions is 0";
    if (c->v_norm && c->no_v)
        return "v_norm needs v";
    if (!c->rotate && !c->norm && !c->v_norm)
        return "without rotation there is a norm";
    if (!c->rotate && (c->positions || c->offsets || c->offset || c->axes || c->direction ||
                       c->start || c->rotary_dim || c->yarn))
        return "without rotation there are no ids";
    if (c->sequences && c->rotate && c->positions == RWT_POSITIONS_NONE)
        return "sequences need positions";
    if (!c->rotate)
        return NULL;
    if (d < 2 || d % 2 || d / 2 > KV_MAX_FREQUENCIES || c->start < 0 || c->start + d > c->head_dim)
        return "the rotary window must be even and inside the head";
    rwt_id_shape shape = {c->batch, c->seq, c->axes ? 3 : 1, c->layout == KV_LAYOUT_THD,
                          c->max_positions};
    return rwt_ids_invalid(rope_append_id_fields(c), &shape);
}

#define SHARED_ROWS                                                                                \
    {RWT_QUICK, "dtype=f32|f16|bf16,paged=none|i32|i64,stride=contiguous|gaps|negative,batch=3"},  \
        {RWT_QUICK, "cache_layout=bhsd|bshd|hbsd,cache_stride=contiguous|gaps|negative,"           \
                    "paged=none|i32,batch=2,seq=19"},                                              \
        {RWT_QUICK, "layout=bshd|bhsd|sbhd,batch=3,dtype=f32|bf16,fused=0|1"},                     \
        {RWT_QUICK, "layout=thd,seq=11,paged=none|i64"},                                           \
        {RWT_QUICK, "v_dim=2|8|31|96,head_dim=2|16|80,dtype=f32|f16|bf16"},                        \
        {RWT_QUICK, "misalign=1|3,cache_misalign=0|2,dtype=f32|bf16"},                             \
        {RWT_QUICK, "misalign=0,cache_misalign=1,dtype=f16|bf16"},                                 \
        {RWT_QUICK, "seq=0|1|2|33,batch=0|1|4,heads=1|8,paged=none|i32"},                          \
        {RWT_QUICK, "heads=0,v_dim=0,seq=3"},                                                      \
        {RWT_QUICK, "page_size=1|2|3|7|16|48|64,max_seq=17|64|100,seq=17,paged=i32|i64,batch=2"},  \
        {RWT_QUICK,                                                                                \
         "no_v=1,dtype=f32|bf16,paged=none|i32,head_dim=64|576,seq=3,cache_stride=gaps"},          \
        {RWT_QUICK,                                                                                \
         "ring=1|7|32|48,seq=1|5|9|40,paged=none|i32,page_size=16|5,batch=3,dtype=bf16,"           \
         "cache_offsets=none|i32|i64,cache_offset=0|61"},                                          \
        {RWT_QUICK, "ring=8,cache_fault=before,batch=2,seq=1|20,paged=none|i64"},                  \
        {RWT_QUICK, "slots=i32|i64,cache_offsets=none,page_size=1|5|16,layout=bshd|thd,seq=23,"    \
                    "dtype=f32|f16|bf16,cache_fault=none|slot_low|slot_high"},                     \
        {RWT_QUICK, "slots=i32,cache_offsets=none,batch=3,seq=0|1|17,stride=negative,no_v=0|1"},   \
        {RWT_QUICK, "cache_offsets=none|i32|i64,cache_offset=0|7,batch=3,paged=none|i64"},         \
        {RWT_QUICK, "cache_fault=before|past_end,batch=3,paged=none|i32,seq=1|5,"                  \
                    "cache_offsets=i32|i64"},                                                      \
        {RWT_QUICK, "cache_fault=page_low|page_high,batch=3,paged=i32|i64,seq=1|19"},              \
        {RWT_QUICK, "values=special,dtype=f32|f16|bf16,paged=none|i32,seq=9"},                     \
        {RWT_QUICK,                                                                                \
         "cache_dtype=f8_e4m3|f8_e5m2,scales=none|one|heads,dtype=f32|f16|bf16,heads=3,"           \
         "values=ordinary|special"},                                                               \
        {RWT_QUICK, "cache_dtype=f8_e4m3,scales=heads,stride=gaps|negative,no_v=0|1,"              \
                    "cache_layout=bhsd|bshd|hbsd,cache_stride=contiguous|gaps|negative,"           \
                    "paged=none|i32,page_size=5"},                                                 \
        {RWT_QUICK, "cache_dtype=f8_e5m2,misalign=0|1,cache_misalign=0|1|4|8,dtype=f32|bf16,"      \
                    "head_dim=24|30|136,v_dim=8|12|7"},                                            \
        {RWT_QUICK,                                                                                \
         "cache_dtype=f8_e4m3,scales=one,slots=i32,cache_offsets=none,seq=17,no_v=0|1"},           \
    {                                                                                              \
        RWT_FULL, "batch=5,seq=300,max_seq=1024,heads=8,head_dim=128,v_dim=128,"                   \
                  "dtype=f32|f16|bf16,paged=none|i32,page_size=64"                                 \
    }

/* Packed tokens of several sequences. */
#define SEQUENCES                                                                                  \
    "layout=thd,seq=40,sequences=1|2|5|17,padding=0|3|40,paged=none|i32,cu_dtype=i32|i64,"

const rwt_case_row kv_rows[] = {
    SHARED_ROWS,
    {RWT_QUICK, SEQUENCES "page_size=5,dtype=f32|bf16,cache_offsets=none|i64,cache_offset=0|2"},
    {RWT_QUICK, SEQUENCES "ring=3|16,dtype=f16"},
    {RWT_QUICK, "layout=thd,seq=9,sequences=1|5,padding=0|3,cache_fault=bound"},
    {RWT_QUICK, "head_dim=576,v_dim=512,seq=3,dtype=f32|bf16"},
    {RWT_QUICK, "head_dim=0|1|3|7|257,v_dim=0|5,dtype=f32|bf16"},
    {RWT_LARGE, "batch=2,seq=8192,max_seq=8192,heads=8,head_dim=128,v_dim=128,dtype=bf16,"
                "paged=i32,page_size=256"},
    {RWT_QUICK, NULL}};

const rwt_case_row rope_append_rows[] = {
    SHARED_ROWS,
    {RWT_QUICK, SEQUENCES "page_size=5,dtype=f32|bf16,positions=seq,placement=out|in"},
    {RWT_QUICK, SEQUENCES "ring=3,dtype=f16,positions=seq,norm=both"},
    {RWT_QUICK, "layout=thd,seq=9,sequences=1|5,padding=0|3,cache_fault=bound,positions=seq,"
                "fault=none|negative"},
    {RWT_QUICK, "slots=i64,cache_offsets=none,seq=12,positions=seq,fault=negative,placement=out"},
    /* MLA: the latent, whose last columns are rotated */
    {RWT_QUICK, "head_dim=576,start=512,rotary_dim=64,no_v=1,heads=1,q_heads=5,norm=none|both,"
                "pairing=half|interleaved,dtype=f32|f16|bf16,placement=out|in"},
    {RWT_QUICK, "head_dim=577,start=513,rotary_dim=64,no_v=1,heads=1,q_heads=2,dtype=f32|bf16"},
    {RWT_QUICK, "cache_dtype=f8_e4m3|f8_e5m2,scales=none|heads,norm=none|both,v_norm=none|weight,"
                "pairing=half|interleaved,dtype=f32|f16|bf16,norm_cast=before|after"},
    {RWT_QUICK, "cache_dtype=f8_e4m3,scales=one,start=4,rotary_dim=32,head_dim=50,norm=none|k,"
                "pairing=half|interleaved,placement=out|in,dtype=f32|bf16"},
    {RWT_QUICK, "cache_dtype=f8_e5m2,scales=heads,rotate=0,norm=both,v_norm=none|plain,dtype=bf16"},
    {RWT_QUICK, "no_v=1,norm=none|k,dtype=f32|bf16,pairing=half|interleaved,head_dim=64|30"},
    {RWT_QUICK, "rotate=0,norm=q|k|both,head_dim=1|7|64|128|512,dtype=f32|f16|bf16,"
                "placement=out|in,norm_cast=before|after,v_norm=none|plain"},
    {RWT_QUICK, "v_norm=weight|plain,v_dim=64|48|7|300,norm=none|both,dtype=f32|f16|bf16,"
                "pairing=half|interleaved,norm_offset=0|1"},
    {RWT_QUICK, "rotate=0,v_norm=weight|plain,v_dim=0|8|40,ring=4,seq=9,q_heads=0|3,heads=0|2,"
                "dtype=f32|bf16"},
    {RWT_FULL,
     "v_norm=plain,head_dim=512,v_dim=512,norm=both,dtype=f32|f16|bf16,heads=2,q_heads=4"},
    {RWT_QUICK, "dtype=f32|f16|bf16,placement=out|in|same,pairing=half|interleaved,"
                "norm=none|both,batch=2"},
    {RWT_QUICK, "norm=q|k|both,norm_dtype=f32|f16|bf16,norm_offset=0|1,dtype=f32|bf16,"
                "pairing=half|interleaved"},
    {RWT_QUICK, "norm=both,norm_cast=before|after,dtype=f32|f16|bf16,head_dim=40|128,start=4,"
                "rotary_dim=32"},
    {RWT_QUICK, "q_heads=0|1|7|32,heads=1|8,norm=none|both"},
    {RWT_QUICK, "q_heads=4,heads=0,norm=both"},
    {RWT_QUICK, "head_dim=2|6|10|48|80|96,pairing=half|interleaved,dtype=f32|f16|bf16,"
                "norm=none|both,placement=in"},
    {RWT_FULL, "head_dim=130|192|256|514|1024,pairing=half|interleaved,dtype=f32|f16|bf16,"
               "norm=none|both,placement=out|in"},
    {RWT_QUICK, "start=0|2|16,rotary_dim=6|16|32|48,norm=none|both,pairing=half|interleaved,"
                "placement=out|in"},
    {RWT_QUICK, "head_dim=65,start=1,rotary_dim=34,norm=none|both,dtype=f32|bf16"},
    {RWT_QUICK, "misalign=1|2,norm=both,placement=out|in,pairing=half|interleaved,dtype=f32|f16"},
    {RWT_QUICK, "yarn=1,direction=forward|inverse|backward,positions=seq|batch_seq,batch=2"},
    {RWT_QUICK, "axes=mrope,positions=axes|batch_seq|none,batch=2,norm=none|both"},
    {RWT_QUICK, "positions=none|seq|batch_seq,offsets=none|i32|i64,offset=0|3,batch=3"},
    {RWT_QUICK, "positions=batch_seq,fault=negative|max,cache_fault=none|past_end,batch=3,"
                "placement=out|in,norm=none|both"},
    {RWT_FULL, "batch=3,seq=100,max_seq=128,q_heads=32,heads=8,head_dim=128,v_dim=128,"
               "dtype=f32|f16|bf16,norm=none|both,paged=i32,page_size=32,positions=batch_seq"},
    {RWT_QUICK, NULL}};

#define SHARED_RANDOM                                                                              \
    "dtype=f32|f16|bf16,batch=1|2|3,seq=0..40,heads=0..6,layout=bshd|bhsd|sbhd|thd,"               \
    "stride=contiguous|gaps|negative,fused=0|0|1,misalign=0|0|1..8,cache_layout=bhsd|bshd|hbsd,"   \
    "cache_stride=contiguous|gaps|negative,cache_misalign=0|0|1..8,paged=none|i32|i64,"            \
    "page_size=1..40|16|32|64,max_seq=48..200,cache_offsets=none|i32|i64,cache_offset=0|0|1..8,"   \
    "cache_fault=none|none|none|before|past_end|page_low|page_high|slot_low|slot_high|bound,"      \
    "no_v=0|0|1,ring=0|0|1..60,sequences=0|0|1..6,padding=0|0|1..9,cu_dtype=i32|i64,"              \
    "slots=none|none|i32|i64,cache_dtype=same|same|f8_e4m3|f8_e5m2,scales=none|one|heads,"         \
    "values=ordinary|ordinary|special,"

const char kv_random[] = SHARED_RANDOM "head_dim=0..160,v_dim=0..160";

const char rope_append_random[] = SHARED_RANDOM
    "head_dim=2..160,v_dim=0..160|64,q_heads=0..9,placement=out|in|same,"
    "pairing=half|interleaved,yarn=0|1,axes=one|one|mrope,start=0|0|1..9,"
    "rotary_dim=0|2..96,direction=forward|inverse|backward,norm=none|q|k|both,rotate=1|1|1|0,"
    "v_norm=none|none|weight|plain,"
    "norm_dtype=f32|f16|bf16,norm_offset=0|1,norm_cast=before|after,max_positions=41..5000,"
    "positions=none|seq|batch_seq|axes,id_dtype=i32|i64,"
    "id_stride=contiguous|gaps|negative,offsets=none|i32|i64,offset=0|0|-9..30,"
    "fault=none|none|none|negative|max|lowest|highest";

const rwt_benchmark kv_benchmarks[] = {
    {"bf16 8x1024x8x128 paged",
     "dtype=bf16,batch=8,seq=1024,heads=8,head_dim=128,v_dim=128,max_seq=1024,paged=i32,"
     "page_size=64,cache_offsets=none",
     true, true, false},
    {"bf16 256x1x8x128 paged",
     "dtype=bf16,batch=256,seq=1,heads=8,head_dim=128,v_dim=128,max_seq=1024,paged=i32,"
     "page_size=64",
     false, true, false},
    {"bf16 8x1024x8x128 paged, f8_e4m3",
     "dtype=bf16,batch=8,seq=1024,heads=8,head_dim=128,v_dim=128,max_seq=1024,paged=i32,"
     "page_size=64,cache_offsets=none,cache_dtype=f8_e4m3,scales=heads",
     true, true, false},
    {NULL, NULL, false, false, false}};

const rwt_benchmark rope_append_benchmarks[] = {
    {"bf16 8x1024x32/8x128",
     "dtype=bf16,batch=8,seq=1024,q_heads=32,heads=8,head_dim=128,v_dim=128,max_seq=1024,"
     "paged=i32,page_size=64,cache_offsets=none,placement=in",
     true, true, false},
    {"bf16 8x1024x32/8x128 norm",
     "dtype=bf16,batch=8,seq=1024,q_heads=32,heads=8,head_dim=128,v_dim=128,max_seq=1024,"
     "paged=i32,page_size=64,cache_offsets=none,placement=in,norm=both,norm_dtype=bf16",
     true, true, false},
    {"bf16 64x1x32/8x128 norm",
     "dtype=bf16,batch=64,seq=1,q_heads=32,heads=8,head_dim=128,v_dim=128,max_seq=1024,"
     "paged=i32,page_size=64,placement=in,norm=both,norm_dtype=bf16",
     true, true, false},
    {NULL, NULL, false, false, false}};
