#include "model_types.h"

#include <string.h>

/* A row of model_types.def. */
#define INTERLEAVED RW_ROPE_INTERLEAVED
#define RWI_MODEL(...) {.name = __VA_ARGS__},

static const rwi_model_type model_types[] = {
#include "model_types.def"
};

/* A row of model_wholes.def. */
#define RWI_WHOLE(of, at, its, ...) {.name = of, .key = at, .part = its, ##__VA_ARGS__},

static const rwi_model_whole wholes[] = {
#include "model_wholes.def"
};

/* Position embeddings of other kinds. */
static const char LEARNED[] = "has learned position embeddings, no rotary ones";
static const char SINUSOIDAL[] = "has sinusoidal position embeddings, no rotary ones";
static const char ABSOLUTE[] = "has learned or sinusoidal position embeddings, no rotary ones";
static const char RELATIVE[] = "has relative position embeddings, no rotary ones";
static const char CONVOLUTIONAL[] = "has convolutional position embeddings, no rotary ones";
static const char T5[] = "has T5's relative position bias, no rotary position embedding";
static const char ALIBI[] = "has ALiBi, no rotary position embedding";
static const char NOTHING[] = "has no position embedding";
static const char PATCHES[] =
    "turns image patches by their row and column, which is not read from a config";
static const char PARTS[] = "is made of other models; give the config of one of them";

/* Rotations that rw_rope_spec has no words for. */
static const char V_TOO[] = "turns v as well as q and k, which is not supported";
static const char H_W_T[] =
    "turns its leading frequencies by h and w ids in turns and the last ones "
    "by t, an order of axes that is not supported";
static const char ATOMS[] = "turns atoms by their coordinates in space, which is not supported";
static const char KEYPOINTS[] =
    "turns keypoints by a learned projection of their coordinates, which is not supported";
static const char TIMESTAMPS[] =
    "turns audio frames by timestamps beside its language model; give the config of that alone";
static const char FIRST_HEAD[] =
    "turns the first head alone, by interleaved pairs, which is not supported";
static const char INPUT[] = "has relative position embeddings, or turns the input of its attention "
                            "before q and k are projected";

#define RWI_WITHOUT(has, name) {name, has},

static const struct without_rope {
    const char *name;
    const char *has;
} without_rope[] = {
#include "models_without_rope.def"
};

const rwi_model_type *rwi_model_type_find(const char *name) {
    for (size_t i = 0; i < sizeof model_types / sizeof model_types[0]; i++)
        if (strcmp(model_types[i].name, name) == 0)
            return &model_types[i];
    return NULL;
}

const rwi_model_whole *rwi_model_whole_find(const char *name) {
    for (size_t i = 0; i < sizeof wholes / sizeof wholes[0]; i++)
        if (strcmp(wholes[i].name, name) == 0)
            return &wholes[i];
    return NULL;
}

const char *rwi_model_without_rope_find(const char *name) {
    for (size_t i = 0; i < sizeof without_rope / sizeof without_rope[0]; i++)
        if (strcmp(without_rope[i].name, name) == 0)
            return without_rope[i].has;
    return NULL;
}
