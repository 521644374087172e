/* ropewalk: position embeddings, masks and attention, on GPUs (HIP) and CPUs (OpenMP).
 *
 * Read the headers in this order; each can be included alone and compiles as C11 and as C++17.
 */
#ifndef ROPEWALK_ROPEWALK_H
#define ROPEWALK_ROPEWALK_H

#include <ropewalk/base.h>       /* version, status, dtype, tensor */
#include <ropewalk/context.h>    /* backend choice, memory, streams, errors */
#include <ropewalk/positions.h>  /* position ids */
#include <ropewalk/rope.h>       /* rotary position embedding */
#include <ropewalk/embedding.h>  /* learned and sinusoidal position embeddings */
#include <ropewalk/pattern.h>    /* attention patterns and masks */
#include <ropewalk/bias.h>       /* ALiBi and T5 */
#include <ropewalk/softmax.h>    /* scale, mask and softmax of scores */
#include <ropewalk/scores.h>     /* matrix products before and after the softmax, statistics */
#include <ropewalk/kv.h>         /* the KV cache */
#include <ropewalk/attention.h>  /* attention */
#include <ropewalk/norm.h>       /* RMSNorm, LayerNorm */
#include <ropewalk/activation.h> /* gated activations: SwiGLU, GEGLU, ReGLU */
#include <ropewalk/mx.h>         /* microscaling formats */

#endif
