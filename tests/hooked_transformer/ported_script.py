"""Find the induction head of a two-layer attention-only model, take it apart and break it.

Written for HookedTransformer of TransformerLens 3. test_port.py runs it with nothing changed
but the import, and compares all that it prints with what it printed there.
"""

from functools import partial

import einops
import torch
from torch.testing import assert_close
from transformer_lens import FactoredMatrix, HookedTransformer, HookedTransformerConfig, utils

cfg = HookedTransformerConfig(
    n_layers=2,
    d_model=120,
    n_heads=4,
    d_head=60,
    d_vocab=20,
    n_ctx=60,
    attn_only=True,
    act_fn=None,
    normalization_type=None,
    positional_embedding_type="shortformer",
    attention_dir="causal",
    use_attn_result=True,
    seed=7,
    device="cpu",
    dtype=torch.float64,
)
untrained = HookedTransformer(cfg)
model = HookedTransformer(cfg)
model.load_state_dict(torch.load("induction.pth", weights_only=True))


def say(name, numbers):
    numbers = torch.as_tensor(numbers).detach().double().flatten()
    print(name + ":", *(f"{number:.6f}" for number in numbers.tolist()))


def heads(scores):
    return [f"{layer}.{head}" for layer, head in (scores > 0.4).nonzero().tolist()]


# Random tokens, said twice: only from the second time on can they be foreseen.

SIZE = 19
generator = torch.Generator().manual_seed(1)
once = torch.stack([torch.randperm(SIZE, generator=generator) + 1 for _ in range(3)])
tokens = torch.cat([torch.zeros(3, 1, dtype=torch.long), once, once], dim=1)
logits, cache = model.run_with_cache(tokens)
loss = model(tokens, return_type="loss", loss_per_token=True)
assert_close(loss.mean(), model(tokens, return_type="loss"))
assert_close(loss, model.loss_fn(logits, tokens, per_token=True))
say("loss the first time", loss[:, :SIZE].mean())
say("loss the second time", loss[:, SIZE:].mean())
say("loss of an untrained model is high", untrained(tokens, return_type="loss") > 2.5)

# What each head looks at, from the patterns that the run kept.

patterns = torch.stack([cache["pattern", layer] for layer in range(cfg.n_layers)])
assert_close(patterns.sum(-1), torch.ones_like(patterns[..., 0]))
by_offset = {
    "the token itself": patterns.diagonal(0, -2, -1).mean((1, -1)),
    "the token before": patterns.diagonal(-1, -2, -1).mean((1, -1)),
    "the first token": patterns[..., 0].mean((1, -1)),
    "what came after it before": patterns.diagonal(1 - SIZE, -2, -1).mean((1, -1)),
}
for name, scores in by_offset.items():
    say(f"attention to {name}", scores)
print("previous-token heads:", heads(by_offset["the token before"]))
print("induction heads:", heads(by_offset["what came after it before"]))

# The same by hooks, of which nothing but the score is kept.


def induction_scores_of(some_model):
    found = torch.zeros(cfg.n_layers, cfg.n_heads, dtype=cfg.dtype)

    def note(pattern, hook):
        found[hook.layer()] = pattern.diagonal(1 - SIZE, dim1=-2, dim2=-1).mean((0, -1))

    def is_pattern(name):
        return name.endswith("pattern")

    with torch.no_grad():
        some_model.run_with_hooks(tokens, return_type=None, fwd_hooks=[(is_pattern, note)])
    return found


assert_close(induction_scores_of(model), by_offset["what came after it before"])
say("untrained heads do nothing of the kind", induction_scores_of(untrained).max() < 0.2)
PREVIOUS, INDUCTION = 3, 0  # heads of layer 0 and of layer 1

# The logit of the right next token, as a sum over the direct path, all heads and the biases.

W_U_next = model.W_U[:, tokens[:, 1:]]  # [d_model batch pos-1]
directions = model.tokens_to_residual_directions(tokens[:, 1:])
assert_close(directions, einops.rearrange(W_U_next, "d batch pos -> batch pos d"))


def onto_next(resid):
    return (resid[:, :-1] * directions).sum(-1)


terms = {"direct path": onto_next(cache["embed"])}
for layer in range(cfg.n_layers):
    result = cache["result", layer]
    assert_close(result.sum(2) + model.b_O[layer], cache["attn_out", layer])
    for head in range(cfg.n_heads):
        terms[f"head {layer}.{head}"] = onto_next(result[:, :, head])
terms["b_O"] = onto_next(model.b_O.sum(0).expand_as(cache["embed"]))
terms["b_U"] = model.unembed.b_U[tokens[:, 1:]]
right = logits[:, :-1].gather(-1, tokens[:, 1:, None]).squeeze(-1)
assert_close(sum(terms.values()), right)
for name, term in terms.items():
    say(f"second time, logit of the right token by {name}", term[:, SIZE:].mean())
stack, labels = cache.stack_head_results(layer=-1, return_labels=True)
by_stack = dict(zip(labels, stack, strict=True))
assert_close(onto_next(by_stack[f"L1H{INDUCTION}"]), terms[f"head 1.{INDUCTION}"])
assert model.all_head_labels() == labels

# Heads taken away one at a time.


def zero(z, hook, head):
    z[:, :, head] = 0.0
    return z


def mean(result, hook, head):
    result[:, :, head] = result[:, :, head].mean((0, 1))
    return result


for kind, ablate, activation in (("zero", zero, "z"), ("mean", mean, "result")):
    rises = torch.zeros(cfg.n_layers, cfg.n_heads)
    for layer in range(cfg.n_layers):
        for head in range(cfg.n_heads):
            hook = (utils.get_act_name(activation, layer), partial(ablate, head=head))
            without = model.run_with_hooks(
                tokens, return_type="loss", loss_per_token=True, fwd_hooks=[hook]
            )
            rises[layer, head] = (without - loss)[:, SIZE:].mean()
    say(f"rise of the loss by {kind} ablation", rises)
assert_close(model(tokens), logits)  # no hook is left

# The copying circuit of the induction head: W_E W_V W_O W_U.

full_OV = FactoredMatrix(model.W_E @ model.W_V[1, INDUCTION], model.W_O[1, INDUCTION] @ model.W_U)
assert_close(full_OV.AB, (model.W_E @ model.OV[1, INDUCTION] @ model.W_U).AB)
say("OV shape and rank", [*full_OV.shape, full_OV.mdim])
say("OV norm", full_OV.norm())
say("OV singular values", full_OV.svd()[1][:4])
values = full_OV.eigenvalues
say("OV copying score", values.real.sum() / values.abs().sum())
say("OV corner", utils.get_corner(full_OV.AB, 2))
every = model.W_E @ model.OV @ model.W_U
top = torch.stack([(every[1, head].AB.argmax(-1) == torch.arange(20)) for head in range(4)])
say("OV top-1 accuracy", top.float().mean(-1))

# The previous-token head: its pattern from positions alone.

scores = model.W_pos @ model.W_Q[0, PREVIOUS] @ model.W_K[0, PREVIOUS].T @ model.W_pos.T
scores = (scores / cfg.d_head**0.5)[: tokens.shape[1], : tokens.shape[1]]
future = torch.ones_like(scores).triu(1).bool()
by_position = scores.masked_fill(future, -torch.inf).softmax(-1)
say("previous-token pattern from positions", by_position.diagonal(-1)[:5])
say("and in the mean", by_position.diagonal(-1).mean())

# The scores of the induction head, term by term: who asks and who is found.

pos = cache["pos_embed"]
sources = torch.stack(
    [cache["embed"], pos, *cache["result", 0].unbind(2), model.b_O[0].expand_as(pos)]
)
names = ["embed", "pos", *(f"head 0.{head}" for head in range(4)), "b_O"]
q = sources @ model.W_Q[1, INDUCTION]
k = sources @ model.W_K[1, INDUCTION]
q = torch.cat([q, model.b_Q[1, INDUCTION].expand_as(q[:1])])
k = torch.cat([k, model.b_K[1, INDUCTION].expand_as(k[:1])])
assert_close(q.sum(0), cache["q", 1][:, :, INDUCTION])
parts = einops.einsum(q, k, "i batch dest d, j batch src d -> i j batch dest src")
parts = parts / cfg.d_head**0.5
seen = ~future
assert_close(parts.sum((0, 1))[:, seen], cache["attn_scores", 1][:, INDUCTION][:, seen])
spread = parts[..., seen].std((-2, -1))
say("spread of the terms of the score", spread)
asks, found = divmod(spread.argmax().item(), len(spread))
print("the largest: query from", [*names, "b_Q"][asks], "key from", [*names, "b_K"][found])

# Without the previous-token head in its keys it finds nothing.

model.set_use_split_qkv_input(True)


def without_previous(k_input, hook):
    k_input[:, :, INDUCTION] -= cache["result", 0][:, :, PREVIOUS]
    return k_input


with model.hooks(fwd_hooks=[("blocks.1.hook_k_input", without_previous)]):
    _, cut = model.run_with_cache(tokens)
    say("loss without it", model(tokens, return_type="loss"))
say("attention left", cut["pattern", 1][:, INDUCTION].diagonal(1 - SIZE, -2, -1).mean())
say("keys kept", cut["k_input", 1].shape)
model.set_use_split_qkv_input(False)

# Composition, and what random matrices of these shapes have.


def composition(A, B):
    return (A @ B).norm() / (A.norm() * B.norm())


reads = {"Q": model.QK[1], "K": model.QK.T[1], "V": model.OV[1]}
for mode, reader in reads.items():
    found = torch.stack(
        [composition(model.OV[0, a], reader[b]) for a in range(4) for b in range(4)]
    ).reshape(4, 4)
    assert_close(found, model.all_composition_scores(mode)[0, :, 1], atol=1e-6, rtol=0)
    say(f"{mode}-composition", model.all_composition_scores(mode)[0, :, 1])
chance = []
for _ in range(5):
    shapes = ((120, 60), (60, 120)) * 2
    A, B, C, D = (torch.randn(shape, generator=generator) for shape in shapes)
    chance.append(composition(FactoredMatrix(A, B), FactoredMatrix(C, D)))
say("composition by chance", torch.stack(chance).mean())

# Gradients, hooks that stay, and text-free generation.

gradients = {}


def keep_gradient(gradient, hook):
    gradients[hook.name] = gradient.pow(2).sum((0, 1, 3)).sqrt()


model.reset_hooks()
model.add_hook(lambda name: name.endswith("hook_z"), keep_gradient, "bwd")
model(tokens, return_type="loss").backward()
model.reset_hooks()
say("gradients at z", torch.stack([gradients[name] for name in sorted(gradients)]))
say("gradient at W_V", model.blocks[1].attn.W_V.grad.flatten(1).norm(dim=1))
model.add_perma_hook("blocks.0.hook_attn_out", lambda attn_out, hook: attn_out * 0)
model.reset_hooks()
say("loss without layer 0", model(tokens, return_type="loss"))
model.reset_hooks(including_permanent=True)
said = model.generate(
    tokens[:, :24],
    max_new_tokens=8,
    do_sample=False,
    stop_at_eos=False,
    use_past_kv_cache=False,
    verbose=False,
)
say("said", said[:, 24:])
say("as it should", (said == tokens[:, :32]).float().mean())
_, one = model.run_with_cache(tokens[:1], names_filter="blocks.1.attn.hook_pattern")
assert one.remove_batch_dim()["pattern", 1].shape == patterns.shape[2:]
resid = model(tokens, stop_at_layer=1)
assert_close(resid, cache["resid_post", 0])
