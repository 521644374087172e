"""Models of transformers on ropewalk.

    import ropewalk.transformers
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="ropewalk")
    print(ropewalk.transformers.patch(model))

Importing this module registers attn_implementation="ropewalk": attention on ropewalk.attention(),
with masks as patterns. patch() puts more of a model on ropewalk: rotary embeddings, RMS norms,
gated activations, and a paged KV cache in generate(). Inference only: call the model under
torch.no_grad(). A model that torch.save() stored is loaded without what patch() replaced, but with
attention on ropewalk: patch it again. torch.jit.trace() is refused: use torch.compile() or
torch.export. What hooks write to masks and angles counts, but not in torch.inference_mode().

Position ids must be in [0, the larger of 2^20 and the model's max_position_embeddings); on a GPU
others are an error of the context's synchronize(). With dynamic scaling of rotary embeddings, a
call has the frequencies of its own length; transformers keeps those of the longest one so far.

Models that compute attention without transformers' AttentionInterface keep their own attention.
"""

from transformers import AttentionInterface, AttentionMaskInterface

from .attend import attend
from .cache import Cache
from .masks import mask
from .patching import Report, patch

__all__ = ["Cache", "Report", "attend", "mask", "patch"]

AttentionInterface.register("ropewalk", attend)
AttentionMaskInterface.register("ropewalk", mask)
