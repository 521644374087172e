/* A model that was read. */
#ifndef RWI_MODEL_OBJECT_H
#define RWI_MODEL_OBJECT_H

#include "model_reader.h"

#define RWI_MAX_LAYER_TYPES 16

/* A type of layers that a rotary embedding is chosen by, or whose heads were read. */
typedef struct rwi_layer_kind {
    char type[RWI_LAYER_TYPE]; /* "" if all layers are alike */
    int32_t rope;              /* index of its embedding, or -1 */
    int64_t num_heads;         /* 0 if unknown, as the following ones */
    int64_t num_kv_heads;
    int64_t head_dim; /* of the rotated part if that is separate */
} rwi_layer_kind;

struct rw_model {
    rw_model_info info;
    rw_model_layer *layers;
    rwi_layer_outline *outline; /* owns the names of the layers' types; NULL: all are alike */
    rwi_layer_kind kinds[RWI_MAX_LAYER_TYPES];
    int32_t num_kinds;
    rw_model_rope ropes[RWI_MAX_LAYER_TYPES];
    double *factors[RWI_MAX_LAYER_TYPES]; /* storage of the specs' arrays */
    char model_type[64];
    char source[104];  /* the file's name, for sentences */
    char without[200]; /* why there is no rotary embedding */
};

/* NULL if there is no such kind. */
const rwi_layer_kind *rwi_model_find_kind(const rw_model *model, const char *type);

/* Sets the fields of the model and of its layers, which exist, that concern attention. The
 * reader's outline and the kinds must have been read. */
void rwi_model_read_attention(rwi_model_reader *reader, rw_model *model);

/* The number of layers according to the file or the class's attention; 0 if unknown. */
int64_t rwi_model_attention_layers(rwi_model_reader *reader);

#endif
