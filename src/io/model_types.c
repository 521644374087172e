/* Sources: transformers:src/transformers/models/<model_type>/{configuration,modeling}_*.py.
 *
 * Pairing: half-split unless listed. DeepSeek's models pair neighbours on the way in but give
 * halves on the way out; what they rotate is, up to a fixed permutation of columns that q and k
 * share, half-split.
 */
#include "model_types.h"

#include <string.h>

#define INTERLEAVED RW_ROPE_INTERLEAVED

static const char no_rope[] = "has no rotary position embedding";

static const rwi_model_type model_types[] = {
    {.name = "chatglm", .pairing = INTERLEAVED, .partial_rotary_factor = 0.5},
    {.name = "codegen", .pairing = INTERLEAVED, .rotary_dim = 64},
    {.name = "cohere", .pairing = INTERLEAVED, .theta = 500000},
    {.name = "cohere2", .pairing = INTERLEAVED},
    {.name = "cohere2_moe", .pairing = INTERLEAVED},
    {.name = "ernie4_5", .pairing = INTERLEAVED, .theta = 500000, .head_dim = 128},
    {.name = "ernie4_5_moe", .pairing = INTERLEAVED, .theta = 500000},
    {.name = "glm", .pairing = INTERLEAVED, .partial_rotary_factor = 0.5, .head_dim = 128},
    {.name = "glm4", .pairing = INTERLEAVED, .partial_rotary_factor = 0.5, .head_dim = 128},
    {.name = "glm4v_text", .pairing = INTERLEAVED},
    {.name = "glm_ocr_text", .pairing = INTERLEAVED},
    {.name = "gptj", .pairing = INTERLEAVED, .rotary_dim = 64},
    {.name = "helium", .pairing = INTERLEAVED, .theta = 100000, .head_dim = 128},
    {.name = "llama4_text", .pairing = INTERLEAVED, .theta = 500000},

    {.name = "apertus", .theta = 12000000},
    {.name = "bamba", .partial_rotary_factor = 0.5},
    {.name = "bitnet", .theta = 500000},
    {.name = "gemma", .head_dim = 256},
    {.name = "gemma2", .head_dim = 256},
    {.name = "gemma3_text", .theta = 1000000, .head_dim = 256},
    {.name = "gemma3n_text", .theta = 1000000, .head_dim = 256},
    {.name = "glm4_moe", .partial_rotary_factor = 0.5},
    {.name = "glm4v_moe_text", .partial_rotary_factor = 0.5},
    {.name = "gpt_neox", .partial_rotary_factor = 0.25},
    {.name = "gpt_oss", .theta = 150000, .head_dim = 64},
    {.name = "lfm2", .theta = 1000000},
    {.name = "minimax", .theta = 1000000},
    {.name = "minimax_m2", .theta = 5000000, .head_dim = 128},
    {.name = "mixtral", .theta = 1000000},
    {.name = "mllama_text_model", .theta = 500000},
    {.name = "modernbert", .theta = 160000},
    {.name = "modernbert-decoder", .theta = 160000},
    {.name = "nemotron", .partial_rotary_factor = 0.5},
    {.name = "nomic_bert", .theta = 1000},
    {.name = "olmo3", .theta = 500000},
    {.name = "persimmon", .partial_rotary_factor = 0.5},
    {.name = "phi", .partial_rotary_factor = 0.5},
    {.name = "phimoe", .theta = 1000000},
    {.name = "qwen2_5_vl", .theta = 1000000},
    {.name = "qwen2_5_vl_text", .theta = 1000000},
    {.name = "qwen2_vl", .theta = 1000000},
    {.name = "qwen2_vl_text", .theta = 1000000},
    {.name = "qwen3", .head_dim = 128},
    {.name = "qwen3_5_moe_text",
     .partial_rotary_factor = 0.25,
     .head_dim = 256,
     .mrope_interleaved = true},
    {.name = "qwen3_5_text",
     .partial_rotary_factor = 0.25,
     .head_dim = 256,
     .mrope_interleaved = true},
    {.name = "qwen3_next", .partial_rotary_factor = 0.25, .head_dim = 256},
    {.name = "qwen3_omni_moe_text", .theta = 1000000, .mrope_interleaved = true},
    {.name = "qwen3_vl_moe_text", .theta = 500000, .mrope_interleaved = true},
    {.name = "qwen3_vl_text", .theta = 500000, .head_dim = 128, .mrope_interleaved = true},
    {.name = "recurrent_gemma", .partial_rotary_factor = 0.5},
    {.name = "seed_oss", .head_dim = 128},
    {.name = "smollm3", .theta = 2000000},
    {.name = "stablelm", .partial_rotary_factor = 0.25},

    {.name = "albert", .refusal = no_rope},
    {.name = "bart", .refusal = no_rope},
    {.name = "bert", .refusal = no_rope},
    {.name = "bloom", .refusal = no_rope},
    {.name = "ernie4_5_vl_moe_text",
     .refusal = "takes its h and w frequencies in turns before those of t, which is not supported"},
    {.name = "gpt2", .refusal = no_rope},
    {.name = "gpt_bigcode", .refusal = no_rope},
    {.name = "gpt_neo", .refusal = no_rope},
    {.name = "mpt", .refusal = no_rope},
    {.name = "nanochat", .refusal = "turns the other way round, which is not supported"},
    {.name = "opt", .refusal = no_rope},
    {.name = "roberta", .refusal = no_rope},
    {.name = "t5", .refusal = no_rope},
    {.name = "whisper", .refusal = no_rope},
};

const rwi_model_type *rwi_model_type_find(const char *name) {
    static const rwi_model_type others = {.name = ""};
    for (size_t i = 0; i < sizeof model_types / sizeof model_types[0]; i++)
        if (strcmp(model_types[i].name, name) == 0)
            return &model_types[i];
    return &others;
}
