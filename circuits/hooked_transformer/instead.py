"""TransformerLens names that do not exist here, each with the code to write instead."""

INSTEAD = {
    "HookedTransformer": {
        "input_to_embed": "model(input, stop_at_layer=0)",
        "get_residual": "model(tokens, stop_at_layer=0)",
        "add_caching_hooks": "run_with_cache(tokens, names_filter=...)",
        "get_caching_hooks": "run_with_cache(tokens, names_filter=...)",
        "cache_some": "run_with_cache(tokens, names_filter=...)",
        "cache_all": "run_with_cache(tokens)",
        "mod_dict": "dict(model.named_modules()), or hook_dict",
        "init_weights": "HookedTransformer(cfg): weights are drawn when a model is made",
        "generate_stream": "generate(tokens, max_new_tokens=1), again and again",
        "load_sample_training_dataset": "circuits.data.text.hub_documents(name)",
        "sample_datapoint": "next(circuits.data.text.hub_documents(name))",
        "move_model_modules_to_device": "model.to(device)",
        "fold_layer_norm": "circuits.model.folding.fold_layer_norm(model)",
        "center_writing_weights": "circuits.model.folding.center_writing(model)",
        "center_unembed": "circuits.model.folding.center_unembedding(model)",
        "fold_value_biases": "circuits.model.folding.fold_values(model)",
        "refactor_factored_attn_matrices": "process_weights_(refactor_factored_attn_matrices=True)",
        "check_and_add_hook": "add_hook(name, hook)",
        "fill_missing_keys": "load_state_dict(weights, strict=False)",
        "get_pos_offset": "past_kv_cache.n",
        "hf_tokenizer": "model.tokenizer",
    },
    "ActivationCache": {
        "logit_lens": "circuits.decomposition.residual.logit_lens(model, cache)",
        "apply_slice_to_batch_dim": "run_with_cache(tokens[rows])",
        "toggle_autodiff": "torch.set_grad_enabled(mode): it acts on the whole thread",
    },
    "utils": {
        "composition_scores": "model.all_composition_scores(mode)",
        "test_prompt": "model(prompt)[0, -1].topk(10)",
        "tokenize_and_concatenate": "circuits.data",
        "get_dataset": "circuits.data.text.hub_documents(name)",
        "get_attention_mask": "model.read(texts), which gives tokens and their mask",
        "get_tokens_with_bos_removed": "tokens[:, 1:]",
        "Slice": "a number, a slice, a tuple or a list as pos_slice; or tensor[:, positions]",
        "remove_batch_dim": "tensor[0]",
        "sample_logits": "circuits.model.likeliest(logits, top_k, top_p), and torch.multinomial",
        "gelu_new": "torch.nn.functional.gelu(x, approximate='tanh')",
        "solu": "circuits.model.layers.solu",
        "download_file_from_hf": "huggingface_hub.hf_hub_download(repo, file)",
    },
}


def missing(owner: str, name: str) -> AttributeError:
    """The error for a name that does not exist here, with the code to write instead."""
    hint = INSTEAD[owner].get(name)
    return AttributeError(f"{owner} has no {name!r} here" + (f": write {hint}" if hint else ""))
