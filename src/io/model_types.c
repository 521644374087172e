#include "model_types.h"

#include <string.h>

/* A row of model_types.def. */
#define INTERLEAVED RW_ROPE_INTERLEAVED
#define RWI_MODEL(...) {.name = __VA_ARGS__},

static const rwi_model_type model_types[] = {
#include "model_types.def"
};

/* A row of composite_models.def. */
#define RWI_COMPOSITE(of, at, its, ...) {.name = of, .key = at, .part = its, ##__VA_ARGS__},

static const rwi_composite_model composite_models[] = {
#include "composite_models.def"
};

/* Other kinds of position embeddings. */
static const rwi_other_positions LEARNED = {"has learned position embeddings, no rotary ones", true,
                                            RW_POSITIONS_LEARNED};
static const rwi_other_positions SINUSOIDAL = {"has sinusoidal position embeddings, no rotary ones",
                                               true, RW_POSITIONS_SINUSOIDAL};
static const rwi_other_positions ABSOLUTE = {
    "has learned or sinusoidal position embeddings, no rotary ones", false, 0};
static const rwi_other_positions RELATIVE = {"has relative position embeddings, no rotary ones",
                                             false, 0};
static const rwi_other_positions CONVOLUTIONAL = {
    "has convolutional position embeddings, no rotary ones", false, 0};
static const rwi_other_positions T5 = {
    "has T5's relative position bias, no rotary position embedding", true, RW_POSITIONS_T5};
static const rwi_other_positions ALIBI = {"has ALiBi, no rotary position embedding", true,
                                          RW_POSITIONS_ALIBI};
static const rwi_other_positions NOTHING = {"has no position embedding", true, RW_POSITIONS_NONE};
static const rwi_other_positions PATCHES = {
    "rotates image patches by their row and column, which is not read from a config", false, 0};
static const rwi_other_positions PARTS = {
    "consists of other models; give the config of one of them", false, 0};

/* Rotations that rw_rope_spec cannot describe. */
static const rwi_other_positions V_TOO = {"rotates v as well as q and k, which is not supported",
                                          false, 0};
static const rwi_other_positions H_W_T = {
    "rotates its leading frequencies by h and w ids alternately and the last ones "
    "by t, an order of axes that is not supported",
    false, 0};
static const rwi_other_positions ATOMS = {
    "rotates atoms by their coordinates in space, which is not supported", false, 0};
static const rwi_other_positions KEYPOINTS = {
    "rotates keypoints by a learned projection of their coordinates, which is not supported", false,
    0};
static const rwi_other_positions TIMESTAMPS = {
    "rotates audio frames by timestamps next to its language model; "
    "give the language model's config",
    false, 0};
static const rwi_other_positions FIRST_HEAD = {
    "rotates only the first head, by interleaved pairs, which is not supported", false, 0};
static const rwi_other_positions INPUT = {
    "has relative position embeddings, or rotates the input of its attention "
    "before q and k are projected",
    false, 0};

#define RWI_WITHOUT(has, name) {name, &has},

static const struct without_rope {
    const char *name;
    const rwi_other_positions *has;
} without_rope[] = {
#include "models_without_rope.def"
};

const rwi_model_type *rwi_model_type_find(const char *name) {
    for (size_t i = 0; i < sizeof model_types / sizeof model_types[0]; i++)
        if (strcmp(model_types[i].name, name) == 0)
            return &model_types[i];
    return NULL;
}

const rwi_composite_model *rwi_composite_model_find(const char *name) {
    for (size_t i = 0; i < sizeof composite_models / sizeof composite_models[0]; i++)
        if (strcmp(composite_models[i].name, name) == 0)
            return &composite_models[i];
    return NULL;
}

const rwi_other_positions *rwi_model_without_rope_find(const char *name) {
    for (size_t i = 0; i < sizeof without_rope / sizeof without_rope[0]; i++)
        if (strcmp(without_rope[i].name, name) == 0)
            return without_rope[i].has;
    return NULL;
}
