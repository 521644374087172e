/* The cases of rw_scale, rw_mask_apply and rw_softmax. */
#include "drivers/softmax_case.h"

const char *scores_invalid(const rwt_case *row) {
    const scores_case *c = scores_case_of(row);
    rw_pattern_shape shape = {c->batch, c->seq_q, c->seq_k};
    if (c->heads < 0 || c->misalign < 0 || c->rank < 1 || c->rank > 4)
        return "a length is negative, or rank is not 1 to 4";
    if ((c->rank < 4 && c->batch != 1) || (c->rank < 3 && c->heads != 1) ||
        (c->rank < 2 && c->seq_q != 1))
        return "axes that x lacks are 1 long";
    if ((c->mask == MASK_QUERIES && c->rank < 2) || (c->mask == MASK_KEYS && c->rank < 4))
        return "a mask has no more axes than x";
    return rwt_pattern_invalid(scores_pattern_of(c), &shape);
}

const char *softmax_invalid(const rwt_case *row) {
    const scores_case *c = scores_case_of(row);
    if (c->softcap < 0 || (c->placement != RWT_OUT_OF_PLACE && c->one_nan && c->poison))
        return "softcap is negative";
    return scores_invalid(row);
}

const rwt_case_row scale_rows[] = {
    {RWT_QUICK,
     "dtype=f32|f16|bf16,stride=contiguous|gaps|negative,placement=out|in|same,percent=0|13|-250"},
    {RWT_QUICK, "rank=1,heads=1,seq_q=1,seq_k=0|1|7|8|255|1024|5000,dtype=f32|f16|bf16,misalign=0|"
                "1,percent=30"},
    {RWT_QUICK, "rank=2,heads=1,seq_q=0|1|300,seq_k=1|3|64,percent=30"},
    {RWT_QUICK, "scores=special,batch=2,heads=3,dtype=f32|f16|bf16,percent=100|50"},
    {RWT_QUICK, NULL}};

const rwt_benchmark scale_benchmarks[] = {{"f32 8x512x2048 in place",
                                           "heads=8,seq_q=512,seq_k=2048,percent=50,placement=in",
                                           true, true, false},
                                          {NULL, NULL, false, false, false}};

const rwt_case_row mask_rows[] = {
    {RWT_QUICK,
     "mask=full|queries|keys|vector,mask_dtype=f32|f16|bf16|u8,dtype=f32|f16|bf16,batch=2,"
     "placement=out|in|same"},
    {RWT_QUICK,
     "mask=none|full|queries,rank=3,causal=1,seq_q=1|7|9|11,stride=contiguous|gaps|negative"},
    {RWT_QUICK, "mask=none|vector,rank=1,heads=1,seq_q=1,seq_k=1|8|9|513|1030,causal=1,left=500"},
    {RWT_QUICK, "mask=none|full,batch=3,prefixes=i64,padding=both,documents=4,own=1,globals=3,"
                "left=2,right=1,bits=batch,hide=keys,hide_dtype=f32|u8,causal=0|1,"
                "poison=0|1"},
    {RWT_QUICK, "mask=none|full,batch=3,align=key_end,padding=right|both,causal=1,seq_q=1|3|12"},
    {RWT_QUICK, "mask=none|full,scores=special,causal=1,poison=0|1"},
    {RWT_QUICK, "mask=full,batch=0|1,heads=0|1,seq_q=0|1,seq_k=0|1"},
    {RWT_QUICK, "batch=3,causal=1,prefixes=i32,pattern_at_fault=prefix"},
    {RWT_QUICK,
     "batch=2,heads=3,documents=3,own=1,seq_q=5|9|12,pattern_at_fault=documents,misalign=1"},
    {RWT_QUICK, NULL}};

const char masked_random[] =
    "dtype=f32|f16|bf16,batch=1..3,heads=1..3,seq_q=1..20,seq_k=1..80,"
    "stride=contiguous|gaps|negative,placement=out|in|same,mask=none|full|queries|keys|vector,"
    "mask_dtype=f32|f16|bf16|u8,causal=0|1,align=bottom|top|key_end,left=-1..50,right=-1..50,"
    "prefixes=none|i32|i64,globals=0..5,documents=0|0|3,own=0|1,padding=none|left|right|both,"
    "bits=none|none|queries|batch|keys,hide=none|none|queries|batch|keys,hide_dtype=f16|u8,poison="
    "0|1,percent=1..200,"
    "alibi=none|absolute|signed,sinks=0|1,softcap=0|0|20,"
    "scores=ordinary|large";

const rwt_benchmark mask_benchmarks[] = {
    {"f32 8x512x2048 + mask", "heads=8,seq_q=512,seq_k=2048,mask=queries", true, true, false},
    {"f32 8x512x2048 causal", "heads=8,seq_q=512,seq_k=2048,causal=1", true, true, false},
    {NULL, NULL, false, false, false}};

const rwt_case_row softmax_rows[] = {
    {RWT_QUICK, "dtype=f32|f16|bf16,stride=contiguous|gaps|negative,placement=out|in|same,percent="
                "13|100|-250"},
    {RWT_QUICK,
     "rank=1,heads=1,seq_q=1,seq_k=0|1|2|7|8|9|31|32|33|127|1025,dtype=f32|f16|bf16,misalign=0|1"},
    {RWT_QUICK,
     "rank=2,heads=1,seq_q=3,seq_k=64|255|256|257|2048|4096|4097|8196,dtype=f32|f16|bf16"},
    {RWT_QUICK,
     "rank=2,heads=1,seq_q=2,seq_k=16384|16388|40001,causal=0|1,alibi=none|signed,dtype=f32|bf16"},
    {RWT_QUICK,
     "causal=1,seq_q=1|5|9|12,seq_k=9|64,poison=0|1,align=bottom|top,dtype=f32|f16|bf16"},
    {RWT_QUICK, "causal=0|1,left=0|3|99,right=-1|0|2,seq_k=70,poison=1,placement=out|in"},
    {RWT_QUICK,
     "causal=1,prefix=0|5|30|99,left=4,seq_q=40,seq_k=40,poison=1,placement=out|in,dtype=f32|bf16"},
    {RWT_QUICK, "causal=1,one_nan=1,poison=0|1,batch=2,seq_q=12,dtype=f32|f16|bf16"},
    {RWT_QUICK,
     "mask=full|queries|keys|vector,mask_dtype=f32|f16|bf16|u8,dtype=f32|f16|bf16,batch=2,"
     "placement=out|in"},
    {RWT_QUICK, "mask=none|full,alibi=none|absolute|signed,sinks=0|1,softcap=0|5|50,causal=0|1,"
                "scores=ordinary|large"},
    {RWT_QUICK, "batch=2,alibi=absolute|signed,align=bottom|top|key_end,"
                "padding=right|both,causal=0|1,seq_q=3|9|70,seq_k=70"},
    {RWT_QUICK, "batch=3,align=key_end,padding=right|both,causal=1,seq_q=1|3|9,seq_k=64|5000,"
                "poison=0|1,dtype=f32|f16|bf16"},
    {RWT_QUICK, "scores=special|lowest,mask=none|full,causal=0|1,sinks=0|1,dtype=f32|f16|bf16"},
    {RWT_QUICK,
     "seq_k=300|5000|20000,seq_q=2,heads=1,scores=large|lowest,mask=none|vector,sinks=0|1"},
    {RWT_QUICK, "mask=none|full,batch=3,prefixes=i64,padding=both,documents=4,own=1,globals=3,"
                "left=2,right=1,bits=batch,hide=keys,hide_dtype=f32|u8,causal=0|1,"
                "poison=0|1"},
    {RWT_QUICK, "globals=2,left=3,right=3,seq_q=40,seq_k=40,poison=1,one_nan=0|1"},
    {RWT_QUICK, "batch=0|1,heads=0|1,seq_q=0|1,seq_k=0|1"},
    {RWT_QUICK, "batch=3,causal=1,prefixes=i32,pattern_at_fault=prefix"},
    {RWT_QUICK, "batch=2,heads=3,padding=right,pattern_at_fault=padding,placement=out|in,"
                "align=bottom|key_end,alibi=none|absolute"},
    {RWT_QUICK, "batch=2,heads=3,documents=3,own=1,seq_q=5|9|12,pattern_at_fault=documents"},
    {RWT_FULL, "rank=1,heads=1,seq_q=1,seq_k=999999|1000000,dtype=f32|f16,scores=ordinary|large"},
    {RWT_FULL, "heads=2,seq_q=300,seq_k=300|1000,causal=1,dtype=f32|f16|bf16,prefix=-1|37"},
    /* more than 8 MiB: nontemporal stores on the CPU */
    {RWT_LARGE,
     "heads=3,seq_q=700,seq_k=2051,causal=1,dtype=f32|f16|bf16,left=-1|500,prefix=-1|37"},
    {RWT_LARGE, "heads=3,seq_q=700,seq_k=2051,mask=queries,dtype=f32|bf16,stride=gaps"},
    {RWT_QUICK, NULL}};

const rwt_benchmark softmax_benchmarks[] = {
    {"causal f32 32x2048x2048", "heads=32,seq_q=2048,seq_k=2048,causal=1,percent=9", false, true,
     false},
    {"causal bf16 32x2048x2048", "heads=32,seq_q=2048,seq_k=2048,causal=1,percent=9,dtype=bf16",
     false, true, false},
    {"f32 8x512x2048", "heads=8,seq_q=512,seq_k=2048,percent=9", true, true, false},
    {"f32 8x512x2048 in place", "heads=8,seq_q=512,seq_k=2048,percent=9,placement=in", true, true,
     false},
    {"f32 8x512x2048 + mask in place",
     "heads=8,seq_q=512,seq_k=2048,percent=9,placement=in,mask=queries", true, true, false},
    {"causal f32 8x512x2048 in place",
     "heads=8,seq_q=512,seq_k=2048,percent=9,placement=in,causal=1", true, true, false},
    {"bf16 8x512x2048 in place", "heads=8,seq_q=512,seq_k=2048,percent=9,placement=in,dtype=bf16",
     true, true, false},
    {"f16 8x512x2048 in place", "heads=8,seq_q=512,seq_k=2048,percent=9,placement=in,dtype=f16",
     true, true, false},
    {NULL, NULL, false, false, false}};
