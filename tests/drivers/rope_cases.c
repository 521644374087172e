/* The cases of rw_rope_apply and rw_rope_rerotate. */
#include "drivers/rope_case.h"
#include "drivers/rope_reference.h"

static const char *window_invalid(const rope_case *c) {
    int64_t d = rope_rotary_width(c);
    if (c->head_dim < 1 || d < 2 || d % 2 || d / 2 > ROPE_MAX_FREQUENCIES)
        return "the rotary width must be even, from 2 to 1024";
    if (c->start < 0 || c->start + d > c->head_dim)
        return "the rotary window must be inside the head";
    if (c->type == RW_ROPE_PROPORTIONAL && c->rotary_dim)
        return "proportional rotates the whole head";
    if ((c->type == RW_ROPE_DYNAMIC || c->from == 1 + RW_ROPE_DYNAMIC) && d == 2)
        return "dynamic needs a rotary width over 2";
    if (c->axes == RW_ROPE_AXES_VISION_2D) {
        bool plain = c->type == RW_ROPE_DEFAULT || c->type == RW_ROPE_LINEAR;
        if (!plain || c->factors || c->from > 1 + RW_ROPE_LINEAR || d % 4)
            return "vision_2d requires default or linear and a rotary width that is a multiple of "
                   "four";
    }
    bool whole = c->type == RW_ROPE_PROPORTIONAL || c->from == 1 + RW_ROPE_PROPORTIONAL;
    if (c->from && whole && (c->rotary_dim || c->partial))
        return "re-rotation from or to proportional rotates the whole head";
    return NULL;
}

const char *rope_invalid(const rwt_case *row) {
    const rope_case *c = rope_case_of(row);
    bool packed = c->layout == ROPE_LAYOUT_THD;
    if (c->batch < 0 || c->seq < 0 || c->q_heads < 0 || c->k_heads < 0 || c->misalign < 0 ||
        c->max_positions < 1)
        return "a length is negative, or max_positions is 0";
    if (packed && c->batch != 1)
        return "layout=thd has no batch";
    if ((c->out_layout == ROPE_LAYOUT_THD) != packed && c->placement == RWT_OUT_OF_PLACE)
        return "layout and out_layout must both be thd or neither";
    if (!c->q_heads && !c->k_heads)
        return "q and k cannot both be absent";
    if (c->from_max < 0 || (c->from_max && !c->from))
        return "from_max is that of `from`";
    if (c->from && c->direction)
        return "re-rotation runs forward";
    const char *why = window_invalid(c);
    rw_rope_spec spec = {.axes = (rw_rope_axes)c->axes};
    rwt_id_shape shape = {c->batch, c->seq, rwt_rope_num_axes(&spec), packed, c->max_positions};
    return why ? why : rwt_ids_invalid(rope_id_fields(c), &shape);
}

const rwt_case_row rope_rows[] = {
    /* every dtype, placement, stride and pairing */
    {RWT_QUICK, "dtype=f32|f16|bf16,placement=out|in|same,stride=contiguous|gaps|negative,"
                "pairing=half|interleaved,batch=2,seq=3,q_heads=3,k_heads=2,head_dim=32"},
    {RWT_QUICK, "seq=4099,q_heads=3,k_heads=2,head_dim=8,dtype=f32|bf16,positions=none|seq"},
    {RWT_FULL, "dtype=f32|f16|bf16,placement=out|in,stride=contiguous|gaps|negative,"
               "pairing=half|interleaved,batch=2,seq=17,q_heads=8,k_heads=2,head_dim=128,"
               "positions=batch_seq"},
    /* layouts, and different layouts of input and output */
    {RWT_QUICK, "layout=bshd|bhsd|sbhd,out_layout=bshd|bhsd|sbhd,batch=2,seq=5,q_heads=4"},
    {RWT_QUICK, "layout=bshd|bhsd|sbhd,placement=in,batch=3,stride=gaps|negative"},
    {RWT_QUICK, "layout=thd,out_layout=thd,positions=none|seq,seq=11,placement=out|in"},
    {RWT_QUICK, "layout=thd,placement=in,axes=mrope_chunked,positions=seq|axes,seq=7"},
    /* q, k and v in one tensor */
    {RWT_QUICK, "fused=1,layout=bshd|bhsd,placement=out|in,batch=2,q_heads=4,k_heads=2,"
                "dtype=f32|bf16"},
    /* head counts of q and k; either may be absent */
    {RWT_QUICK, "q_heads=1|8|32,k_heads=0|1|2|8,head_dim=16"},
    {RWT_QUICK, "q_heads=0,k_heads=1|4,placement=out|in"},
    /* widths around vector and tile sizes */
    {RWT_QUICK, "head_dim=2|4|6|8|10|14|16|18|30|34|62|66|80|96,pairing=half|interleaved,"
                "dtype=f32|f16|bf16"},
    {RWT_FULL, "head_dim=126|130|192|256|258|320|512|514,pairing=half|interleaved,"
               "dtype=f32|f16|bf16,placement=out|in"},
    /* windows */
    {RWT_QUICK, "head_dim=64,start=0|2|3|16,rotary_dim=2|6|16|32|48,pairing=half|interleaved"},
    {RWT_QUICK, "head_dim=576,start=512,rotary_dim=64,pairing=half|interleaved,k_heads=1,q_heads=3,"
                "dtype=f32|f16|bf16,batch=2"},
    {RWT_QUICK, "head_dim=512|574,pairing=half|interleaved,dtype=f32|bf16"},
    {RWT_QUICK, "head_dim=65|127,start=1|5,rotary_dim=34,pairing=half|interleaved,"
                "dtype=f32|f16|bf16,placement=out|in"},
    {RWT_QUICK, "head_dim=80|96|128,partial=25|50,pairing=half|interleaved"},
    /* unaligned pointers */
    {RWT_QUICK, "misalign=1|2|3|7,dtype=f32|f16|bf16,pairing=half|interleaved,placement=out|in"},
    /* lengths */
    {RWT_QUICK, "seq=0|1|2|3|7|8|9|31|33,batch=1|3,q_heads=1,head_dim=16"},
    {RWT_QUICK, "batch=0|1|5,seq=4"},
    {RWT_FULL, "seq=63|64|65|127|129|257,batch=2,q_heads=7,k_heads=3,dtype=f32|bf16"},
    {RWT_FULL, "seq=1|257,batch=2,q_heads=32,k_heads=8,head_dim=128,dtype=f32|f16|bf16,"
               "placement=in"},
    /* frequencies */
    {RWT_QUICK, "type=default|linear|dynamic|yarn|longrope|llama3,variant=0|1|2,factors=0|1"},
    {RWT_QUICK, "type=longrope,variant=3,direction=forward|inverse"},
    {RWT_QUICK, "type=proportional,partial=0|25|50|75,variant=0|1,pairing=half|interleaved"},
    {RWT_QUICK, "type=yarn|longrope,direction=inverse|backward,variant=0|2,"
                "pairing=half|interleaved,placement=out|in"},
    {RWT_QUICK, "type=yarn|longrope|dynamic,partial=50,positions=seq"},
    /* several ids for a token */
    {RWT_QUICK, "axes=mrope_chunked|mrope_interleaved,sections=even|skewed|one_empty,"
                "positions=axes|batch_seq|seq|none,batch=2,pairing=half|interleaved"},
    {RWT_QUICK, "axes=mrope_chunked|mrope_interleaved,positions=axes,head_dim=64,rotary_dim=22,"
                "start=4,type=default|yarn,id_stride=contiguous|negative"},
    {RWT_QUICK, "axes=vision_2d,positions=axes|batch_seq,pairing=half|interleaved,batch=2,"
                "head_dim=80|64,type=default|linear,dtype=f32|bf16"},
    {RWT_QUICK, "axes=2d_interleaved,positions=axes|batch_seq,pairing=half|interleaved,batch=2,"
                "head_dim=80|64|22,type=default|yarn,dtype=f32|bf16"},
    /* ids */
    {RWT_QUICK, "positions=none|seq|batch_seq,id_dtype=i32|i64,offsets=none|i32|i64,offset=0|3,"
                "batch=3"},
    {RWT_QUICK, "positions=batch_seq,id_stride=gaps|negative,batch=3,offset=-7|7"},
    {RWT_QUICK, "max_positions=1|2|3|1023|1025,seq=1,positions=seq"},
    {RWT_FULL, "max_positions=1048576,positions=batch_seq,batch=2,seq=40,head_dim=128,q_heads=1,"
               "type=default|llama3|yarn"},
    {RWT_QUICK, "max_positions=1048576,offset=1048571,seq=5,head_dim=16"},
    /* ids outside the table */
    {RWT_QUICK, "positions=seq|batch_seq,fault=negative|max|lowest|highest,id_dtype=i32|i64,"
                "batch=3,placement=out|in"},
    {RWT_QUICK, "positions=axes,fault=negative|max|highest,axes=mrope_chunked|vision_2d,batch=2,"
                "placement=out|in"},
    {RWT_QUICK, "positions=batch_seq,fault=lowest|highest,offset=-1|1,id_dtype=i32|i64"},
    {RWT_QUICK, "max_positions=8,seq=12,offset=0|-2,offsets=none|i64,batch=2"},
    {RWT_FULL, "positions=batch_seq,fault=max,batch=4,seq=333,q_heads=8,head_dim=64"},
    /* re-rotation */
    {RWT_QUICK, "from=default|linear|dynamic|yarn|longrope|llama3|proportional,"
                "type=default|dynamic|longrope,pairing=half|interleaved,positions=seq"},
    {RWT_QUICK, "from=longrope,type=yarn,dtype=f32|f16|bf16,placement=out|in,batch=2,"
                "head_dim=96,stride=contiguous|gaps"},
    {RWT_QUICK, "from=default,type=linear,axes=mrope_chunked|vision_2d|2d_interleaved,"
                "positions=axes,fault=none|max"},
    {RWT_QUICK, "from=default,type=linear,from_max=7|4090|8192,seq=9,offset=0|4085"},
    /* NaN, Inf, zeros, subnormals */
    {RWT_QUICK, "values=special,dtype=f32|f16|bf16,placement=out|in,pairing=half|interleaved,"
                "positions=seq,rotary_dim=48,start=8,seq=9"},
    /* long and large */
    {RWT_LARGE, "seq=2048,q_heads=32,k_heads=32,head_dim=128,max_positions=2048,placement=in"},
    {RWT_LARGE, "seq=4096,q_heads=32,k_heads=8,head_dim=128,dtype=bf16,max_positions=8192,"
                "layout=bhsd,out_layout=bshd"},
    {RWT_LARGE, "seq=100003,q_heads=1,k_heads=1,head_dim=64,max_positions=131072,dtype=f16,"
                "pairing=interleaved"},
    {RWT_QUICK, NULL}};

const char rope_random[] =
    "dtype=f32|f16|bf16,type=default|linear|dynamic|yarn|longrope|llama3|proportional,"
    "variant=0..3,factors=0|0|1,pairing=half|interleaved,"
    "axes=one|one|one|mrope_chunked|mrope_interleaved|vision_2d|2d_interleaved,sections=even|"
    "skewed|one_empty,"
    "batch=1|1|2|3,seq=0..40,q_heads=0..9,k_heads=0..4,head_dim=2..160,start=0|0|0..9,"
    "rotary_dim=0|0|2..96,partial=0|0|25..100,layout=bshd|bhsd|sbhd|thd,"
    "out_layout=bshd|bhsd|sbhd|thd,stride=contiguous|gaps|negative,placement=out|in|same,"
    "fused=0|0|1,misalign=0|0|1..8,direction=forward|forward|inverse|backward,"
    "from=none|none|none|none|default|linear|dynamic|yarn|longrope|llama3|proportional,"
    "max_positions=41..5000,positions=none|seq|batch_seq|axes,id_dtype=i32|i64,"
    "id_stride=contiguous|gaps|negative,offsets=none|i32|i64,offset=0|0|-9..30,"
    "fault=none|none|none|negative|max|lowest|highest,values=ordinary|ordinary|ordinary|special";

const rwt_benchmark rope_benchmarks[] = {
    {"q+k bf16 65536x32/8x128",
     "dtype=bf16,seq=65536,q_heads=32,k_heads=8,head_dim=128,"
     "placement=in,positions=seq,max_positions=65536",
     false, true, false},
    {"q+k bf16 8192x32/8x128",
     "dtype=bf16,seq=8192,q_heads=32,k_heads=8,head_dim=128,"
     "placement=in,positions=seq,max_positions=8192",
     false, true, false},
    {"q+k bf16 2048x32/8x128",
     "dtype=bf16,seq=2048,q_heads=32,k_heads=8,head_dim=128,"
     "placement=in,positions=seq,max_positions=8192",
     false, true, false},
    {"q+k f32 2048x32/32x128",
     "dtype=f32,seq=2048,q_heads=32,k_heads=32,head_dim=128,"
     "placement=in,positions=seq,max_positions=8192",
     true, true, false},
    {"q+k bf16 256x32/8x128",
     "dtype=bf16,seq=256,q_heads=32,k_heads=8,head_dim=128,"
     "placement=in,positions=seq,max_positions=8192",
     false, true, false},
    {"q+k bf16 1x32/8x128",
     "dtype=bf16,seq=1,q_heads=32,k_heads=8,head_dim=128,"
     "placement=in,positions=seq,max_positions=8192",
     false, true, false},
    {"q f32 2048x32x128",
     "dtype=f32,seq=2048,q_heads=32,k_heads=0,head_dim=128,"
     "placement=in,positions=seq,max_positions=8192",
     true, false, false},
    {"q f16 2048x32x128",
     "dtype=f16,seq=2048,q_heads=32,k_heads=0,head_dim=128,"
     "placement=in,positions=seq,max_positions=8192",
     true, false, false},
    {"q bf16 2048x32x128",
     "dtype=bf16,seq=2048,q_heads=32,k_heads=0,head_dim=128,"
     "placement=in,positions=seq,max_positions=8192",
     true, false, false},
    {"q f32 interleaved 2048x32x128",
     "dtype=f32,seq=2048,q_heads=32,k_heads=0,head_dim=128,"
     "placement=in,positions=seq,max_positions=8192,pairing=interleaved",
     true, false, false},
    {"q f16 interleaved 2048x32x128",
     "dtype=f16,seq=2048,q_heads=32,k_heads=0,head_dim=128,"
     "placement=in,positions=seq,max_positions=8192,pairing=interleaved",
     true, false, false},
    {"q+k f32 1x32/8x128 hot",
     "dtype=f32,seq=1,q_heads=32,k_heads=8,head_dim=128,"
     "placement=in,positions=seq,max_positions=8192",
     true, false, true},
    {"q+k f32 16x32/8x128 hot",
     "dtype=f32,seq=16,q_heads=32,k_heads=8,head_dim=128,"
     "placement=in,positions=seq,max_positions=8192",
     true, false, true},
    {NULL, NULL, false, false, false}};
