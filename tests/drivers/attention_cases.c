/* The cases of rw_attention. */
#include "drivers/attention_case.h"

static bool width_fits(int64_t width) {
    return width >= 1 && width <= 576;
}

static const char *ragged_invalid(const rwt_attention_case *c) {
    if (!c->ragged && (c->packed_k || c->decodes || c->hint || c->bounds_at_fault))
        return "the batch is not ragged";
    if (c->ragged && c->batch > RWT_MAX_SEQUENCES)
        return "there are too many sequences";
    if (c->ragged && c->extreme)
        return "ragged batches have no extreme scores";
    if (c->packed_k && c->paged)
        return "pages are not packed";
    if (c->packed_k && c->documents && !c->own)
        return "packed sequences have documents of their own";
    if (c->ragged && (c->one_nan || c->pattern_at_fault) && c->batch == 0)
        return "a NaN or a fault needs a sequence";
    if (c->bounds_at_fault &&
        (c->batch < 2 || c->heads == 0 || c->seq_q < 2 || c->pattern_at_fault || c->page_fault))
        return "invalid bounds need sequences, and are the only fault";
    if (c->bounds_at_fault == BOUNDS_KEYS && !c->packed_k)
        return "invalid bounds of keys need them";
    return NULL;
}

const char *rwt_attention_invalid(const rwt_case *row) {
    const rwt_attention_case *c = rwt_attention_case_of(row);
    rw_pattern_shape shape = {c->batch, c->seq_q, c->seq_k};
    if (c->heads < 0 || c->misalign < 0 || c->softcap < 0 || c->scale < 0)
        return "a length is negative";
    if (c->group < 1 || c->heads % c->group != 0)
        return "group must divide heads";
    if (!width_fits(c->head_dim) || !width_fits(c->v_dim))
        return "head_dim and v_dim are from 1 to 576";
    if (c->view && (c->v_dim > c->head_dim || c->extreme))
        return "a view has the columns of k, and its values";
    if (c->layout == LAYOUT_THD && c->batch != 1 && !c->ragged)
        return "layout=thd has no batch";
    if (c->page_size < 16 || (c->page_size & (c->page_size - 1)) != 0)
        return "page_size must be a power of two, at least 16";
    if (c->paged && c->seq_k % c->page_size != 0)
        return "seq_k must be a multiple of page_size";
    if (c->page_fault && (!c->paged || rwt_attention_has_cells(c) || c->pattern_at_fault ||
                          c->seq_q == 0 || c->seq_k == 0 || c->batch == 0 || c->heads == 0))
        return "page_fault requires pages and a query that reads them";
    if (c->one_nan && (c->mask || c->alibi))
        return "a NaN whose key has a weight of 0 may show or not";
    if (c->extreme && (c->scale || c->softcap || c->alibi || c->one_nan))
        return "what is extreme is exact";
    if (c->extreme && (c->extreme == EXTREME_SINK) != (c->sinks != 0))
        return "a sink is what is extreme, or is not there";
    if (c->extreme && (c->extreme <= EXTREME_MASK_LOWEST) != (c->mask != 0))
        return "a mask is what is extreme, or is not there";
    if (c->extreme && c->mask_dtype != RW_F32)
        return "an extreme mask has its own dtype";
    if (c->kv_scale && !c->kv_dtype)
        return "only 8-bit dtypes have scales";
    if (c->kv_dtype && c->extreme)
        return "8 bits hold no extreme numbers";
    const char *why = ragged_invalid(c);
    return why ? why : rwt_pattern_invalid(rwt_attention_pattern_of(c), &shape);
}

const rwt_case_row rwt_attention_rows[] = {
    {RWT_QUICK, "dtype=f32|f16|bf16,stride=contiguous|gaps|negative,causal=0|1,batch=2"},
    {RWT_QUICK, "dtype=f32|f16|bf16,out_dtype=f32|f16|bf16,seq_k=70,causal=1"},
    {RWT_QUICK, "layout=bhsd|bshd|hbsd,group=1|2|4,batch=2,seq_k=13"},
    {RWT_QUICK, "layout=thd,dtype=f32|bf16,stride=contiguous|gaps|negative,seq_q=5|40,seq_k=48,"
                "paged=none|i32,mask=none|full|keys,v_dim=40"},
    {RWT_QUICK, "layout=thd,documents=3,causal=0|1,seq_q=20,seq_k=20,lse=0|1"},
    {RWT_QUICK, "heads=6|12,group=3|6,seq_q=1|5|40,seq_k=66,causal=1"},
    {RWT_QUICK, "heads=71,group=71,seq_q=3,seq_k=5,head_dim=8,v_dim=8"},
    {RWT_QUICK, "head_dim=8|40|64|128,v_dim=8|64|72|136,seq_k=20,dtype=f32|bf16"},
    {RWT_FULL, "head_dim=96|192|256,v_dim=128|200|256,seq_k=130,seq_q=70,heads=2,"
               "dtype=f32|f16|bf16"},
    {RWT_QUICK, "head_dim=72|80|88|96,v_dim=72|80|88|96,seq_q=140,seq_k=150,heads=2,causal=1,"
                "dtype=f16|bf16,one_nan=none|v,poison=1"},
    {RWT_QUICK, "head_dim=80|96,v_dim=80|96|40,seq_q=70,seq_k=160,heads=2,batch=2,paged=none|i32,"
                "padding=right,causal=1,dtype=bf16,out_dtype=f32|bf16,lse=1,misalign=0|4,"
                "stride=contiguous|gaps"},
    {RWT_QUICK, "heads=14,group=7,seq_q=1,seq_k=90,head_dim=20|72|100|130,v_dim=12|80|97,"
                "dtype=f32|f16|bf16,one_nan=none|v,poison=1"},
    {RWT_QUICK, "heads=14,group=7,seq_q=1,seq_k=90,head_dim=20|72|100|130,v_dim=12|80|97,"
                "kv_dtype=f8_e4m3|f8_e5m2,kv_scale=heads,dtype=f32|f16|bf16,poison=1"},
    {RWT_QUICK, "head_dim=1|7|33|100|250,v_dim=1|7|34|101|255,seq_q=3|20,seq_k=20,heads=2,"
                "dtype=f32|f16|bf16"},
    {RWT_QUICK, "head_dim=264|512|576,v_dim=8|264|512|576,seq_q=3|18,seq_k=20,heads=2,"
                "dtype=f32|f16|bf16"},
    {RWT_QUICK, "head_dim=257|575,v_dim=300|573,out_dtype=f32|bf16,dtype=bf16|f32,seq_q=3,"
                "seq_k=70,causal=1,misalign=0|1,stride=contiguous|gaps|negative"},
    {RWT_QUICK, "head_dim=20|52|576,v_dim=36|12|512,dtype=f32|f16|bf16,misalign=1,"
                "out_dtype=f32|f16|bf16,seq_q=5,seq_k=20"},
    {RWT_QUICK, "head_dim=576,v_dim=512,view=1,heads=32,group=16|32,seq_q=1|4,seq_k=80,"
                "causal=1,dtype=f32|f16|bf16,paged=none|i32,page_size=16,poison=1,padding=right"},
    {RWT_QUICK, "head_dim=576,v_dim=33|512|576,view=1,seq_q=5,seq_k=80,one_nan=none|v,poison=1,"
                "causal=1,dtype=f32|f16|bf16,paged=none|i32"},
    {RWT_QUICK, "head_dim=576,v_dim=512,view=1,heads=40,group=40,seq_q=1|2,seq_k=130,causal=1,"
                "left=-1|70,dtype=f16|bf16,one_nan=none|v,poison=1,lse=1"},
    {RWT_QUICK, "head_dim=520,v_dim=264|40,view=1,heads=40,group=40,seq_q=2,seq_k=130,causal=1,"
                "dtype=bf16,out_dtype=f32|bf16,one_nan=v,poison=1"},
    {RWT_QUICK, "head_dim=576,v_dim=512,view=1,heads=2,group=2,seq_q=40,seq_k=140,softcap=0|5,"
                "mask=none|full,alibi=none|absolute,sinks=0|1,bits=none|queries,dtype=bf16"},
    {RWT_QUICK, "head_dim=36|40,v_dim=5|32|36,view=1,seq_q=5|40,seq_k=80,one_nan=none|k,poison=1,"
                "causal=1,dtype=f32|f16|bf16"},
    {RWT_QUICK, "head_dim=512,v_dim=512,heads=8,group=4,seq_q=9|33,seq_k=70,causal=1,left=-1|20,"
                "dtype=f32|bf16,softcap=0|20,sinks=0|1,mask=none|full,alibi=none|absolute"},
    {RWT_QUICK, "head_dim=100|576,v_dim=100|512,mask=full,mask_dtype=f16|u8,dtype=f16|bf16,"
                "seq_q=40,seq_k=141,heads=2,bits=none|queries,one_nan=none,padding=both"},
    {RWT_QUICK, "head_dim=512,v_dim=100,paged=i64,page_fault=low|high,seq_k=96,batch=2,causal=1,"
                "dtype=f32|bf16,seq_q=9|20"},
    {RWT_QUICK, "extreme=scale|products|large,head_dim=27|300,v_dim=27|300,dtype=f32|f16|bf16,"
                "seq_q=3|40,seq_k=70,heads=2"},
    {RWT_QUICK, "extreme=sink,sinks=1,dtype=f32|f16|bf16,head_dim=9,v_dim=9,heads=1,group=1,"
                "seq_q=1,seq_k=4400"},
    {RWT_FULL, "head_dim=576,v_dim=512,view=0|1,heads=128,group=128,seq_q=1|2,seq_k=300,causal=1,"
               "dtype=bf16,one_nan=none|k"},
    {RWT_FULL, "head_dim=576,v_dim=512,view=1,heads=64,group=64,seq_q=1,seq_k=4500,"
               "dtype=f16|bf16,out_dtype=f32,one_nan=none|v,poison=1,causal=1"},
    {RWT_FULL, "extreme=small,dtype=f32|f16|bf16,out_dtype=f32|f16,heads=1,group=1,seq_q=1|33,"
               "seq_k=65536,head_dim=9,v_dim=9"},
    {RWT_FULL, "head_dim=264|300|512|576,v_dim=250|256|320|500|512|576,seq_k=130,seq_q=70,heads=2,"
               "dtype=f32|f16|bf16"},
    {RWT_QUICK, "seq_q=0|1|3,seq_k=0|1|4,batch=0|1|2,causal=0|1"},
    {RWT_QUICK, "heads=0,group=1"},
    {RWT_QUICK, "seq_q=63|64|65|130,seq_k=64|65|129,heads=1,group=1,causal=0|1,head_dim=16,"
                "v_dim=16"},
    {RWT_QUICK, "seq_q=5,seq_k=9,causal=1,align=bottom|top"},
    {RWT_QUICK, "seq_q=9,seq_k=5,causal=1,align=bottom|top,poison=0|1"},
    {RWT_QUICK, "causal=1,left=0|3|40,seq_q=100,seq_k=150,heads=2,head_dim=16,v_dim=16"},
    {RWT_QUICK, "left=2,right=1|30,seq_q=40,seq_k=130,heads=2,poison=0|1"},
    {RWT_QUICK, "causal=1,prefix=0|4|200,seq_q=70,seq_k=70,heads=2"},
    {RWT_QUICK, "causal=1,left=3,globals=3,seq_q=20,seq_k=140,heads=2"},
    {RWT_QUICK, "documents=1|4,causal=0|1,seq_q=70,seq_k=70,heads=2,part_dtype=i32|i64"},
    {RWT_QUICK, "padding=left|right|both,batch=3,causal=0|1,poison=1,seq_k=70"},
    {RWT_QUICK, "bits=queries|batch|keys,batch=2,poison=1,causal=0|1"},
    {RWT_QUICK, "hide=queries|batch|keys,hide_dtype=f32|u8,batch=2,poison=1,seq_k=9|75"},
    {RWT_QUICK, "pattern_at_fault=prefix,prefixes=i32,causal=1,batch=3,lse=0|1"},
    {RWT_QUICK, "pattern_at_fault=padding,padding=both,batch=3,seq_k=70"},
    {RWT_QUICK, "pattern_at_fault=documents,documents=3,own=1,batch=3,seq_q=5|13,causal=0|1"},
    {RWT_QUICK, "scale=1|64,softcap=0|2|30,dtype=f32|bf16"},
    {RWT_QUICK, "mask=full|keys,batch=2,causal=0|1,seq_k=70"},
    {RWT_QUICK, "mask=full|keys,mask_dtype=f16|bf16,dtype=f16|bf16,seq_q=70,seq_k=140,heads=2"},
    {RWT_QUICK, "mask=full|keys,mask_dtype=u8,dtype=f32|f16|bf16,seq_q=1|70,seq_k=141,heads=2,"
                "batch=2,softcap=0|5"},
    {RWT_QUICK, "lse=2,layout=bshd|thd,stride=contiguous|gaps|negative,seq_q=9|70"},
    {RWT_QUICK, "mask=full,mask_dtype=f32|f16|bf16,stride=gaps,seq_q=70,seq_k=139,heads=2"},
    {RWT_QUICK, "alibi=absolute|signed,causal=1,left=0,seq_q=75,seq_k=75,heads=8"},
    {RWT_QUICK, "alibi=absolute|signed,align=bottom|top,seq_k=70,causal=0|1,seq_q=9|70"},
    {RWT_QUICK, "align=key_end,padding=right|both,batch=3,causal=0|1,seq_q=1|3|9,seq_k=70,"
                "alibi=none|absolute|signed,poison=0|1"},
    {RWT_QUICK, "align=key_end,padding=right,batch=3,causal=1,left=-1|5,seq_q=70,seq_k=150,heads=2,"
                "globals=0|2,pattern_at_fault=none|padding,alibi=none|absolute"},
    {RWT_QUICK, "sinks=1,causal=0|1,seq_q=9|12,seq_k=9,softcap=0|5,alibi=none|absolute"},
    {RWT_QUICK, "sinks=1,seq_k=0"},
    {RWT_QUICK, "one_nan=v|k|q,causal=0|1,seq_q=20,seq_k=90,poison=0|1,dtype=f32|bf16"},
    {RWT_QUICK, "one_nan=v|q,causal=1,left=5,seq_q=70,seq_k=140,heads=2,dtype=f16|bf16"},
    {RWT_QUICK, "misalign=1|3,dtype=f32|f16|bf16,lse=0"},
    {RWT_QUICK, "paged=i32|i64,seq_k=48,layout=bhsd|bshd|hbsd,stride=contiguous|gaps|negative,"
                "batch=2,causal=0|1"},
    {RWT_QUICK, "paged=i32,page_size=16|32|64|128,seq_k=128,dtype=f32|bf16,causal=1,seq_q=1|70,"
                "padding=none|right|both,batch=3,poison=1"},
    {RWT_QUICK, "paged=i64,page_fault=low|high,seq_k=96,batch=3,causal=0|1,padding=none|right,"
                "left=-1|20"},
    {RWT_QUICK, "dtype=bf16,seq_q=300,seq_k=600,heads=2,head_dim=64,v_dim=40,causal=1,left=-1|70,"
                "one_nan=none|v,poison=0|1"},
    {RWT_QUICK, "dtype=bf16,heads=8,group=4,seq_q=4|5|8,seq_k=700,head_dim=64,v_dim=64,causal=1,"
                "left=-1|300,batch=2,one_nan=none|v,poison=1"},
    {RWT_QUICK, "dtype=bf16,seq_q=250,paged=i32,page_size=32,seq_k=320,padding=both,"
                "batch=2,poison=1,softcap=0|20"},
    {RWT_FULL, "seq_q=200,seq_k=515,heads=4,group=2,head_dim=128,v_dim=128,causal=1,"
               "dtype=f32|f16|bf16,out_dtype=f32|bf16"},
    {RWT_FULL, "seq_q=1,seq_k=2049,heads=8,group=4,head_dim=64,v_dim=64,batch=2,padding=right,"
               "dtype=f32|bf16"},
    {RWT_QUICK, "extreme=mask_1e9|mask_1e10|mask_lowest,mask=keys,dtype=f32|f16|bf16,seq_q=3|40,"
                "seq_k=70,heads=2"},
    {RWT_QUICK, "extreme=scale|products|large,dtype=f32|f16|bf16,seq_q=3|40,seq_k=70,heads=2,"
                "causal=0|1"},
    {RWT_QUICK, "extreme=scale|products|large,dtype=f16|bf16,seq_q=70,seq_k=140,heads=2"},
    {RWT_QUICK, "extreme=small,dtype=f32|f16|bf16,heads=1,group=1,seq_q=1,seq_k=8200,head_dim=8,"
                "v_dim=8"},
    {RWT_FULL, "extreme=small,dtype=f32|f16|bf16,out_dtype=f32|f16,heads=1,group=1,seq_q=1|33,"
               "seq_k=65536,head_dim=8,v_dim=8"},
    {RWT_QUICK, "extreme=sink,sinks=1,dtype=f32|f16|bf16,out_dtype=f32|bf16,seq_q=3|70,seq_k=70,"
                "heads=2"},
    {RWT_QUICK, "extreme=sink,sinks=1,dtype=f32|f16|bf16,heads=1,group=1,seq_q=1,seq_k=8500,"
                "head_dim=8,v_dim=8"},
    {RWT_QUICK, "extreme=sink,sinks=1,dtype=bf16,heads=1,group=1,seq_q=130,seq_k=8500,head_dim=8,"
                "v_dim=8"},
    {RWT_QUICK, "products=split,head_dim=8|64|128|200,v_dim=24|64|128|256,seq_q=40|130,seq_k=150,"
                "heads=2,causal=0|1"},
    {RWT_QUICK, "products=split,seq_q=70,seq_k=140,heads=2,one_nan=v|k|q,causal=1,poison=0|1"},
    {RWT_QUICK,
     "products=split,extreme=scale|products|large,seq_q=40,seq_k=140,heads=2,causal=0|1"},
    {RWT_QUICK, "products=split,extreme=sink,sinks=1,seq_q=70,seq_k=70,heads=2"},
    {RWT_FULL,
     "products=split,seq_q=200,seq_k=515,heads=4,group=2,head_dim=128,v_dim=128,causal=1"},
    {RWT_FULL,
     "products=split,extreme=small,heads=1,group=1,seq_q=33,seq_k=65536,head_dim=8,v_dim=8"},
    {RWT_QUICK, "kv_dtype=f8_e4m3|f8_e5m2,kv_scale=none|one|heads,dtype=f32|f16|bf16,seq_q=1|20|90,"
                "seq_k=100,causal=1,stride=contiguous|gaps"},
    {RWT_QUICK, "kv_dtype=f8_e4m3,kv_scale=heads,dtype=f32|bf16,seq_q=5|40,seq_k=96,softcap=0|5,"
                "alibi=none|absolute,mask=none|full,sinks=1"},
    {RWT_QUICK, "kv_dtype=f8_e4m3|f8_e5m2,kv_scale=heads,dtype=f32|bf16,seq_q=5|40,seq_k=96,"
                "one_nan=v|k,poison=1,causal=1,misalign=0|3"},
    {RWT_QUICK,
     "kv_dtype=f8_e4m3|f8_e5m2,kv_scale=heads,dtype=f32|f16|bf16,ragged=i32,packed_k=0|1,"
     "batch=4,seq_q=3|40,seq_k=70,causal=1"},
    {RWT_QUICK, "kv_dtype=f8_e4m3|f8_e5m2,kv_scale=one,dtype=f32|bf16,ragged=none|i32,batch=4,"
                "seq_q=3|40,seq_k=96,paged=i32,padding=right,align=key_end,causal=1,poison=1"},
    {RWT_QUICK, "kv_dtype=f8_e4m3,kv_scale=heads,dtype=f32|f16|bf16,head_dim=96|200,v_dim=128|72,"
                "seq_q=5|40,seq_k=130"},
    {RWT_QUICK, "kv_dtype=f8_e4m3,kv_scale=heads,dtype=f32|f16|bf16,head_dim=1|33|575,"
                "v_dim=7|101|573,seq_q=3|40,seq_k=40,causal=1"},
    {RWT_QUICK, "kv_dtype=f8_e5m2,kv_scale=one,dtype=f32|f16|bf16,head_dim=20|72|264|576,"
                "v_dim=12|80|512,seq_q=20,seq_k=70,heads=2,misalign=0|4,stride=contiguous|gaps"},
    {RWT_QUICK, "kv_dtype=f8_e4m3|f8_e5m2,kv_scale=heads,dtype=f32|bf16,out_dtype=bf16,"
                "head_dim=257|512,v_dim=300|512,seq_q=20,seq_k=96,one_nan=v|k,poison=1,causal=1,"
                "misalign=0|3"},
    {RWT_QUICK, "kv_dtype=f8_e4m3,kv_scale=heads,dtype=f32|f16|bf16,head_dim=576,"
                "v_dim=33|512|576,view=1,heads=32,group=16|32,seq_q=1,seq_k=80,causal=1,"
                "paged=none|i32,poison=1,padding=right,one_nan=none|v"},
    {RWT_QUICK, "kv_dtype=f8_e5m2,kv_scale=heads,dtype=f32|bf16,head_dim=512,v_dim=512,heads=8,"
                "group=4,seq_q=9|33,seq_k=70,left=-1|20,causal=1,softcap=0|20,sinks=1,"
                "mask=none|full,alibi=none|absolute"},
    {RWT_QUICK, "kv_dtype=f8_e4m3,kv_scale=heads,dtype=f16|bf16,head_dim=100|576,v_dim=100|512,"
                "mask=full,mask_dtype=f16|u8,seq_q=40,seq_k=141,heads=2,bits=none|queries,"
                "padding=both,batch=2"},
    {RWT_QUICK, "kv_dtype=f8_e5m2,kv_scale=heads,dtype=f32|f16|bf16,ragged=i32,packed_k=0|1,"
                "batch=3,seq_q=9|40,seq_k=70,head_dim=20|300|576,v_dim=12|512,causal=1"},
    {RWT_QUICK, "kv_dtype=f8_e4m3,kv_scale=heads,dtype=f32|bf16,ragged=i32,batch=3,seq_q=9,"
                "seq_k=96,paged=i32,head_dim=576,v_dim=512,view=0|1,heads=16,group=8|16,causal=1,"
                "padding=right,align=key_end,poison=1,hint=1"},
    {RWT_QUICK, "kv_dtype=f8_e4m3,kv_scale=one,dtype=f32|bf16,head_dim=512,v_dim=100,paged=i64,"
                "page_fault=low|high,seq_k=96,batch=2,causal=1,seq_q=9|20"},
    {RWT_FULL, "kv_dtype=f8_e4m3|f8_e5m2,kv_scale=heads,dtype=f32|f16|bf16,"
               "head_dim=72|100|264|512|576,v_dim=33|250|320|512|576,seq_k=130,seq_q=70,heads=2"},
    {RWT_QUICK, "ragged=i32|i64,packed_k=0|1,dtype=f32|f16|bf16,batch=5,seq_q=1|20|90,seq_k=100,"
                "causal=1"},
    {RWT_QUICK, "ragged=i32,packed_k=0|1,batch=0|1|2,seq_q=0|3,seq_k=0|5,causal=0|1"},
    {RWT_QUICK, "ragged=i32,heads=0,group=1,batch=2"},
    {RWT_QUICK, "ragged=i32,batch=6,seq_q=70,seq_k=96,paged=i32|i64,padding=right|both,causal=1,"
                "align=key_end,dtype=f32|bf16,hint=0|1,poison=1"},
    {RWT_QUICK, "ragged=i32,batch=20,decodes=1,seq_q=1|40,seq_k=128,paged=i32,padding=right,"
                "causal=1,align=key_end,heads=8,group=4|8,hint=0|1,dtype=bf16"},
    {RWT_QUICK, "ragged=i64,batch=4,seq_q=40,seq_k=70,padding=none|left|right|both,causal=0|1,"
                "left=-1|5,lse=0|1|2,align=bottom|top,packed_k=0|1,poison=1"},
    {RWT_QUICK,
     "ragged=i32,batch=4,seq_q=30,seq_k=60,packed_k=0|1,mask=full|keys,mask_dtype=f32|f16"
     "|u8"},
    {RWT_QUICK, "ragged=i32,batch=4,seq_q=30,seq_k=60,packed_k=0|1,bits=none|queries|batch|keys,"
                "hide=none|queries|batch|keys,causal=0|1"},
    {RWT_QUICK, "ragged=i32,batch=4,seq_q=30,seq_k=60,packed_k=0|1,alibi=absolute|signed,sinks=0|1,"
                "softcap=0|5,align=bottom|top"},
    {RWT_QUICK, "ragged=i32,batch=4,seq_q=30,seq_k=60,padding=right,alibi=absolute,align=key_end,"
                "prefixes=none|i32,globals=0|3,left=5,causal=1"},
    {RWT_QUICK, "ragged=i32,batch=4,seq_q=30,seq_k=60,packed_k=0|1,documents=3,own=1,causal=0|1"},
    {RWT_QUICK, "ragged=i32,batch=6,seq_q=60,seq_k=20,packed_k=0|1,globals=4,left=2,align=bottom|"
                "top"},
    {RWT_QUICK, "ragged=i32,batch=3,seq_q=12|40,seq_k=80,one_nan=v|k|q,causal=1,packed_k=0|1,"
                "dtype=f32|bf16"},
    {RWT_QUICK, "ragged=i32|i64,batch=3,seq_q=5|40,seq_k=20,packed_k=1,"
                "bounds_at_fault=down|past|first|long|keys,lse=0|1"},
    {RWT_QUICK, "ragged=i32,batch=3,seq_q=5|40,seq_k=32,bounds_at_fault=down|past|first|long,"
                "paged=none|i32"},
    {RWT_QUICK, "ragged=i32,batch=3,seq_q=5|40,seq_k=32,pattern_at_fault=padding,padding=right,"
                "align=key_end,causal=1,paged=none|i32"},
    {RWT_QUICK, "ragged=i64,batch=3,seq_q=5|40,seq_k=96,paged=i64,page_fault=low|high"},
    {RWT_QUICK, "ragged=i32,batch=3,seq_q=9|40,seq_k=70,packed_k=0|1,head_dim=20|300|576,"
                "v_dim=12|512,heads=4,group=4,dtype=f32|f16|bf16,causal=1,hint=0|1,view=0"},
    {RWT_QUICK,
     "ragged=i32,batch=3,seq_q=9,seq_k=96,paged=i32,head_dim=576,v_dim=512,view=1,heads=16,"
     "group=16,dtype=f32|bf16,causal=1,padding=right,align=key_end"},
    {RWT_QUICK, "ragged=i32,batch=3,seq_q=9|40,seq_k=20,stride=gaps|negative,layout=bhsd|bshd|hbsd,"
                "packed_k=0|1,misalign=0|3,dtype=f32|bf16"},
    {RWT_QUICK, "ragged=i32,batch=3,seq_q=40,seq_k=70,packed_k=0|1,head_dim=128|192,v_dim=128,"
                "heads=4,group=4,dtype=f32|f16|bf16,causal=1,invariant=0|1"},
    {RWT_QUICK, "ragged=i32,batch=4,seq_q=150,seq_k=300,packed_k=0|1,head_dim=64|96|128|192|256,"
                "v_dim=128,heads=4,group=4,dtype=bf16,causal=1,one_nan=v,poison=1"},
    {RWT_QUICK, "ragged=i32,batch=4,seq_q=150,seq_k=300,packed_k=1,head_dim=64|128|192,v_dim=64,"
                "heads=2,group=2,dtype=f16,causal=1,poison=1"},
    {RWT_LARGE, "ragged=i32,batch=4,seq_q=150,seq_k=300,packed_k=0|1,head_dim=64|96|128|192|256,"
                "v_dim=64|128,heads=4,group=4,dtype=f16|bf16,causal=1,one_nan=none|v,poison=1"},
    {RWT_QUICK, "ragged=i32,batch=9,seq_q=150,seq_k=384,paged=i32,page_size=16|128,head_dim=128,"
                "v_dim=128,heads=4,group=4,padding=right,align=key_end,causal=1,dtype=bf16,lse=1,"
                "hint=0|1,decodes=0|1"},
    {RWT_QUICK, "ragged=i32,batch=9,seq_q=150,seq_k=384,paged=i32,page_size=64,head_dim=128,"
                "v_dim=128,heads=4,group=2,padding=right,align=key_end,causal=1,dtype=bf16,"
                "decodes=0|1,softcap=5"},
    {RWT_LARGE, "ragged=i32,batch=9,seq_q=150,seq_k=384,paged=i32,page_size=16|64|128,head_dim=128,"
                "v_dim=128,heads=4,group=2|4,padding=right,align=key_end,causal=1,dtype=bf16,"
                "lse=0|1,hint=0|1,decodes=0|1,softcap=0|5"},
    {RWT_QUICK, "ragged=i32,batch=4,seq_q=30,seq_k=200,packed_k=0|1,head_dim=576,v_dim=512,view=1,"
                "heads=16,group=16,dtype=bf16,causal=1,one_nan=v,poison=1,decodes=0|1"},
    {RWT_FULL, "ragged=i32,batch=4,seq_q=30,seq_k=200,packed_k=0|1,head_dim=576,v_dim=512,view=1,"
               "heads=16,group=16,dtype=f16,causal=1,one_nan=none,poison=1"},
    {RWT_FULL, "ragged=i32,batch=3,seq_q=40,seq_k=17500,packed_k=0|1,head_dim=64,v_dim=64,heads=1,"
               "group=1,dtype=f16,causal=1"},
    {RWT_FULL, "ragged=i32,batch=3,seq_q=2,seq_k=17500,packed_k=1,head_dim=576,v_dim=512,view=1,"
               "heads=4,group=4,dtype=f16,causal=1"},
    {RWT_FULL, "ragged=i32,batch=4,seq_q=300,seq_k=700,packed_k=0|1,head_dim=64,v_dim=64,heads=2,"
               "dtype=f32|f16|bf16,causal=1,left=-1|100"},
    {RWT_QUICK, NULL}};

const char rwt_attention_random[] =
    "dtype=f32|f16|bf16,out_dtype=f32|f16|bf16,batch=1|2|3,heads=1..8,group=1|1|2|3|4,"
    "seq_q=0..20|0..90,seq_k=0..20|0..150,head_dim=8|16|24|40|64|80|128|1..80|200..576,"
    "v_dim=8|16|32|64|72|128|1..80|200..576,view=0|0|1,"
    "layout=bhsd|bshd|hbsd|thd,stride=contiguous|gaps|negative,misalign=0|0|1..8,lse=0|1|2,"
    "scale=0|0|1..40,softcap=0|0|1..30,mask=none|none|full|keys,mask_dtype=f32|f16|bf16|u8,"
    "alibi=none|none|absolute|signed,sinks=0|0|1,poison=0|1,one_nan=none|none|none|v|k|q,"
    "causal=0|1,align=bottom|top|key_end,left=-1|-1|0..40,right=-1|-1|0..40,prefix=-1|-1|0..60,"
    "globals=0|0|1..5,documents=0|0|1..5,own=0|1,"
    "padding=none|none|left|right|both,bits=none|none|none|queries|batch|keys,"
    "hide=none|none|none|queries|batch|keys,hide_dtype=f32|u8,part_dtype=i32|i64,paged=none|none|"
    "i32|i64,"
    "page_size=16|32|64,page_fault=none|none|low|high,split=0|0|1,ragged=none|none|i32|i64,"
    "packed_k=0|0|1,decodes=0|0|1,hint=0|1,invariant=0|1,kv_dtype=same|same|f8_e4m3|f8_e5m2,"
    "kv_scale=none|one|heads,products=exact|split";

/* Few queries against many keys: the keys are split. */
const rwt_case_row rwt_combine_rows[] = {
    {RWT_QUICK, "dtype=f32|f16|bf16,out_dtype=f32|bf16,seq_q=1|3,seq_k=520,head_dim=64,v_dim=40"},
    {RWT_QUICK, "seq_q=1,seq_k=255|256|257|513,heads=8,group=8|1,lse=0|1"},
    {RWT_QUICK, "seq_q=5,seq_k=600,causal=1,left=-1|300,batch=2,stride=gaps"},
    {RWT_QUICK, "dtype=bf16,heads=4,group=4,seq_q=5|8|20,seq_k=1100,head_dim=64,v_dim=64,causal=1,"
                "left=-1|300,one_nan=none|v,poison=1"},
    {RWT_QUICK, "layout=thd,seq_q=2,seq_k=640,paged=none|i32,dtype=f32|bf16"},
    {RWT_QUICK, "seq_q=2,seq_k=600,padding=right|both,batch=3,poison=1,causal=0|1"},
    {RWT_QUICK, "seq_q=3,seq_k=600,mask=full|keys,mask_dtype=u8,dtype=f32|bf16,lse=2,batch=2"},
    {RWT_QUICK, "seq_q=1,seq_k=600,sinks=1,alibi=none|absolute,softcap=0|5"},
    {RWT_QUICK, "seq_q=2,seq_k=640,paged=i32|i64,page_size=16|128,batch=2,padding=none|right"},
    {RWT_QUICK, "seq_q=3,seq_k=640,paged=i32,page_fault=low|high,batch=2,causal=0|1,left=-1|40"},
    {RWT_QUICK, "seq_q=3,seq_k=600,batch=2,pattern_at_fault=padding,padding=both"},
    {RWT_QUICK, "seq_q=3,seq_k=600,one_nan=v|k|q,poison=1,causal=1"},
    {RWT_QUICK, "head_dim=576,v_dim=512,view=0|1,heads=16,group=16,seq_q=1|3,seq_k=640,causal=1,"
                "dtype=f32|f16|bf16,paged=none|i32,page_size=32|64"},
    {RWT_QUICK, "head_dim=7|300,v_dim=1|6|301,seq_q=2,seq_k=600,dtype=f32|bf16,one_nan=none|v,"
                "out_dtype=f32|bf16,misalign=0|1"},
    {RWT_QUICK, "seq_q=9,seq_k=3,causal=1,align=top"},
    {RWT_FULL, "seq_q=1,seq_k=4100,heads=8,group=4,head_dim=128,v_dim=128,dtype=f32|bf16,"
               "batch=1|3"},
    {RWT_QUICK, "extreme=mask_1e9|mask_1e10|mask_lowest,mask=keys,dtype=f32|f16|bf16,seq_q=1,"
                "seq_k=600,heads=2"},
    {RWT_QUICK, "extreme=scale|products|large,dtype=f32|f16|bf16,seq_q=2,seq_k=600,heads=2"},
    {RWT_FULL, "extreme=small,dtype=f32|bf16,heads=1,group=1,seq_q=1,seq_k=65536,head_dim=8,"
               "v_dim=8"},
    {RWT_QUICK, "extreme=sink,sinks=1,dtype=f32|f16|bf16,seq_q=2,seq_k=600,heads=2"},
    {RWT_QUICK, "kv_dtype=f8_e4m3|f8_e5m2,kv_scale=heads,dtype=f32|bf16,seq_q=1|5,seq_k=640,"
                "paged=none|i32,ragged=none|i32,batch=2,lse=1"},
    {RWT_QUICK, "kv_dtype=f8_e4m3,kv_scale=heads,dtype=f32|f16|bf16,head_dim=576,v_dim=512,"
                "view=0|1,heads=32,group=16,seq_q=1|3,seq_k=640,causal=1,paged=none|i32"},
    {RWT_QUICK, "kv_dtype=f8_e5m2,kv_scale=heads,dtype=f32|bf16,head_dim=7|300,v_dim=1|6|301,"
                "seq_q=2,seq_k=600,one_nan=none|v,out_dtype=f32|bf16,misalign=0|1"},
    {RWT_QUICK, "kv_dtype=f8_e4m3,kv_scale=heads,ragged=i32,batch=2|3,seq_q=2,seq_k=1140,"
                "head_dim=64|576,v_dim=65|300,dtype=f32|bf16,causal=1"},
    {RWT_QUICK, "ragged=i32|i64,packed_k=0|1,batch=3,seq_q=1|5|40,seq_k=700,causal=1,"
                "dtype=f32|bf16,invariant=0|1"},
    {RWT_QUICK,
     "ragged=i32,batch=4,decodes=1,seq_q=1|40,seq_k=640,paged=i32,padding=right,causal=1,"
     "align=key_end,heads=8,group=4,hint=0|1,sinks=0|1,lse=2"},
    {RWT_QUICK, "ragged=i32,batch=3,seq_q=5,seq_k=600,packed_k=1,"
                "bounds_at_fault=down|past|first|long|keys"},
    {RWT_QUICK, "ragged=i32,batch=3,seq_q=5|40,seq_k=640,pattern_at_fault=padding,padding=right,"
                "align=key_end,causal=1,paged=none|i32"},
    {RWT_QUICK, "ragged=i64,batch=3,seq_q=5,seq_k=640,paged=i64,page_fault=low|high"},
    {RWT_QUICK,
     "ragged=i32,batch=2|3,seq_q=2,seq_k=1140,head_dim=64|576,v_dim=65|300,dtype=f32|bf16,"
     "causal=1"},
    {RWT_QUICK, NULL}};

const char rwt_combine_random[] =
    "dtype=f32|f16|bf16,out_dtype=f32|f16|bf16,batch=1|2|3,heads=1..8,group=1|1|2|3|4,"
    "seq_q=1|1|2..6,seq_k=200..1400,head_dim=8|16|64|80|1..70|200..576,"
    "v_dim=8|32|64|72|1..70|200..576,view=0|0|1,layout=bhsd|bshd|hbsd|thd,"
    "stride=contiguous|gaps|negative,misalign=0|0|1..8,lse=0|1|2,softcap=0|0|1..30,"
    "mask=none|none|full|keys,mask_dtype=f32|f16|bf16|u8,alibi=none|none|absolute|signed,sinks=0|0|"
    "1,"
    "poison=0|1,causal=0|1,left=-1|-1|0..400,prefix=-1|-1|0..60,documents=0|0|1..5,"
    "padding=none|none|left|right|both,paged=none|i32|i64,page_size=16|32|64,"
    "page_fault=none|none|low|high,ragged=none|none|i32|i64,packed_k=0|0|1,decodes=0|0|1,hint=0|1,"
    "kv_dtype=same|same|f8_e4m3|f8_e5m2,kv_scale=none|one|heads";

const rwt_benchmark rwt_attention_benchmarks[] = {
    {"f32 512x512 8/2x128 causal",
     "heads=8,group=4,seq_q=512,seq_k=512,head_dim=128,v_dim=128,causal=1,lse=0", true, true,
     false},
    {"bf16 512x512 8/2x128 causal",
     "dtype=bf16,out_dtype=bf16,heads=8,group=4,seq_q=512,seq_k=512,head_dim=128,v_dim=128,"
     "causal=1,lse=0",
     true, false, false},
    {"bf16 2048x2048 8/2x128 causal",
     "dtype=bf16,out_dtype=bf16,heads=8,group=4,seq_q=2048,seq_k=2048,head_dim=128,v_dim=128,"
     "causal=1,lse=0",
     true, false, false},
    {"bf16 1024x1024 12x64 full",
     "dtype=bf16,out_dtype=bf16,heads=12,group=1,seq_q=1024,seq_k=1024,head_dim=64,v_dim=64,lse=0",
     true, false, false},
    {"bf16 512x512 8/2x128 causal, softcap",
     "dtype=bf16,out_dtype=bf16,heads=8,group=4,seq_q=512,seq_k=512,head_dim=128,v_dim=128,"
     "causal=1,lse=0,softcap=50",
     true, false, false},
    {"f32 1x32x2048x128 causal",
     "heads=32,group=1,seq_q=2048,seq_k=2048,head_dim=128,v_dim=128,causal=1,lse=0", false, true,
     false},
    {"bf16 4x32x4096x128 causal",
     "dtype=bf16,out_dtype=bf16,batch=4,heads=32,group=1,seq_q=4096,seq_k=4096,head_dim=128,"
     "v_dim=128,causal=1,lse=0",
     false, true, false},
    {"bf16 4x32x4096x128 full",
     "dtype=bf16,out_dtype=bf16,batch=4,heads=32,group=1,seq_q=4096,seq_k=4096,head_dim=128,"
     "v_dim=128,lse=0",
     false, true, false},
    {"bf16 4x32x4096x128 window 1024",
     "dtype=bf16,out_dtype=bf16,batch=4,heads=32,group=1,seq_q=4096,seq_k=4096,head_dim=128,"
     "v_dim=128,causal=1,left=1023,lse=0",
     false, true, false},
    {"bf16 1x32x16384x128 causal",
     "dtype=bf16,out_dtype=bf16,heads=32,group=1,seq_q=16384,seq_k=16384,head_dim=128,v_dim=128,"
     "causal=1,lse=0",
     false, true, false},
    {"bf16 1x32x16384x128 window 1024",
     "dtype=bf16,out_dtype=bf16,heads=32,group=1,seq_q=16384,seq_k=16384,head_dim=128,v_dim=128,"
     "causal=1,left=1023,lse=0",
     false, true, false},
    {"bf16 1x8x65536x128 causal",
     "dtype=bf16,out_dtype=bf16,heads=8,group=1,seq_q=65536,seq_k=65536,head_dim=128,v_dim=128,"
     "causal=1",
     false, true, false},
    {"bf16 4x32x4096x128 prefix 1024",
     "dtype=bf16,out_dtype=bf16,batch=4,heads=32,group=1,seq_q=4096,seq_k=4096,head_dim=128,"
     "v_dim=128,causal=1,prefix=1024,lse=0",
     false, true, false},
    {NULL, NULL, false, false, false}};

const rwt_benchmark rwt_combine_benchmarks[] = {
    {"bf16 1x8192 8/2x128 decode",
     "dtype=bf16,out_dtype=bf16,heads=8,group=4,seq_q=1,seq_k=8192,head_dim=128,v_dim=128,"
     "lse=0",
     true, true, false},
    {"bf16 64x8192 32/8x128 decode",
     "dtype=bf16,out_dtype=bf16,batch=64,heads=32,group=4,seq_q=1,seq_k=8192,head_dim=128,"
     "v_dim=128,lse=0",
     false, true, false},
    {"bf16 1x32768 32/8x128 decode",
     "dtype=bf16,out_dtype=bf16,batch=1,heads=32,group=4,seq_q=1,seq_k=32768,head_dim=128,"
     "v_dim=128,lse=0",
     false, true, false},
    {"bf16 64x8192 32/8x128 decode, pages of 16",
     "dtype=bf16,out_dtype=bf16,batch=64,heads=32,group=4,seq_q=1,seq_k=8192,head_dim=128,"
     "v_dim=128,lse=0,paged=i32",
     false, true, false},
    {"bf16 64x8192 32/8x128 decode, f8 cache",
     "dtype=bf16,out_dtype=bf16,batch=64,heads=32,group=4,seq_q=1,seq_k=8192,head_dim=128,"
     "v_dim=128,lse=0,kv_dtype=f8_e4m3,kv_scale=one",
     false, true, false},
    {"bf16 ragged: 32 decodes and a chunk of 2048, 8192 keys, 32/8x128, pages of 16",
     "dtype=bf16,out_dtype=bf16,batch=33,heads=32,group=4,ragged=i32,decodes=1,seq_q=2048,"
     "seq_k=8192,head_dim=128,v_dim=128,lse=0,paged=i32,causal=1,hint=1",
     false, true, false},
    {"bf16 64x8192 128/1x576/512 decode, v in k",
     "dtype=bf16,out_dtype=bf16,batch=64,heads=128,group=128,seq_q=1,seq_k=8192,head_dim=576,"
     "v_dim=512,view=1,lse=0",
     false, true, false},
    {"bf16 64x8192 128/1x576/512 decode, v in k, f8 cache",
     "dtype=bf16,out_dtype=bf16,batch=64,heads=128,group=128,seq_q=1,seq_k=8192,head_dim=576,"
     "v_dim=512,view=1,lse=0,kv_dtype=f8_e4m3,kv_scale=one",
     false, true, false},
    {NULL, NULL, false, false, false}};
