"""The cases of tests/fixtures/golden as data: models, adapters, optimisers that shared/golden does not cover.

A case is a dict: name; `model` (a key of MODELS) or `base` (a key of BASES: its weights lie in a folder that cases share);
`lora` (keywords of peft's LoraConfig; None: every tensor is trained); `train` (the recipe where it departs from TRAIN).
"""

# ---- models -----------------------------------------------------------------
SMALL = dict(vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=256, rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=2,
             pad_token_id=0)
BASE = dict(SMALL, vocab_size=160, intermediate_size=64, num_hidden_layers=3)
TINY = dict(SMALL, vocab_size=64, hidden_size=24, intermediate_size=40)

# Twelve pairs are rotated in a head of 32 with a partial factor of 0.75.
LONG = [round(1.0 + 0.5 * i, 3) for i in range(12)]
SHORT = [round(1.0 + 0.02 * i, 3) for i in range(12)]


def rope(kind, theta=10000.0, **fields):
    return dict(rope_parameters=dict(rope_type=kind, rope_theta=theta, **fields))


def small(**k):
    return dict(SMALL, **k)


# name: (model_type, config as transformers 5 has it, what an older file says instead of rope_parameters, further lengths)
MODELS = {
    "llama-linear": ("llama", small(tie_word_embeddings=False, **rope("linear", factor=4.0)),
                     dict(rope_theta=10000.0, rope_scaling=dict(type="linear", factor=4.0)), []),
    "llama-dynamic": ("llama", small(tie_word_embeddings=False, max_position_embeddings=16, **rope("dynamic", factor=2.0)),
                      dict(rope_theta=10000.0, rope_scaling=dict(type="dynamic", factor=2.0)), [12, 16, 17, 40]),
    "llama-yarn": ("llama", small(tie_word_embeddings=True, **rope("yarn", 50000.0, factor=8.0, beta_fast=16.0, beta_slow=2.0,
                                                                  mscale=1.0, mscale_all_dim=0.5, truncate=False,
                                                                  original_max_position_embeddings=32)),
                   dict(rope_theta=50000.0,
                        rope_scaling=dict(type="yarn", factor=8.0, beta_fast=16.0, beta_slow=2.0, mscale=1.0,
                                          mscale_all_dim=0.5, truncate=False, original_max_position_embeddings=32)), [60]),
    "llama3": ("llama", small(tie_word_embeddings=True, attention_bias=True,
                              **rope("llama3", 500000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                                     original_max_position_embeddings=16)),
               dict(rope_theta=500000.0, rope_scaling=dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0,
                                                           high_freq_factor=4.0, original_max_position_embeddings=16)), [40]),
    "mistral": ("mistral", small(sliding_window=8, head_dim=16, **rope("default", 1e6)),
                dict(rope_theta=1e6), []),
    "qwen2-yarn": ("qwen2", small(tie_word_embeddings=True, use_sliding_window=False, max_window_layers=2,
                                  **rope("yarn", 1e6, factor=4.0, original_max_position_embeddings=16)),
                   dict(rope_theta=1e6, rope_scaling=dict(type="yarn", factor=4.0, original_max_position_embeddings=16)), [40]),
    "qwen2-window": ("qwen2", small(tie_word_embeddings=False, use_sliding_window=True, sliding_window=8, max_window_layers=1,
                                    **rope("default", 1e6)), dict(rope_theta=1e6), []),
    "qwen3-yarn": ("qwen3", small(tie_word_embeddings=True, head_dim=12,
                                  **rope("yarn", 1e6, factor=4.0, original_max_position_embeddings=16)),
                   dict(rope_theta=1e6, rope_scaling=dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=16)),
                   []),
    "gemma": ("gemma", small(head_dim=16, num_key_value_heads=1, hidden_activation="gelu_pytorch_tanh", **rope("default")),
              dict(rope_theta=10000.0), []),
    "gemma2": ("gemma2", small(head_dim=16, sliding_window=8, query_pre_attn_scalar=24, attn_logit_softcapping=20.0,
                               final_logit_softcapping=10.0, **rope("default")), dict(rope_theta=10000.0), []),
    "gemma3-linear": ("gemma3_text", small(head_dim=16, sliding_window=8, query_pre_attn_scalar=32, sliding_window_pattern=2,
                                           layer_types=["sliding_attention", "full_attention"],
                                           rope_parameters=dict(
                                               full_attention=dict(rope_type="linear", factor=8.0, rope_theta=1e6),
                                               sliding_attention=dict(rope_type="default", rope_theta=1e4))),
                      dict(rope_theta=1e6, rope_local_base_freq=1e4, rope_scaling=dict(rope_type="linear", factor=8.0)), [40]),
    "phi3-longrope": ("phi3", small(tie_word_embeddings=False, num_attention_heads=2, num_key_value_heads=1, hidden_size=64,
                                    original_max_position_embeddings=16,
                                    **rope("longrope", long_factor=LONG, short_factor=SHORT, partial_rotary_factor=0.75)),
                      dict(rope_theta=10000.0, partial_rotary_factor=0.75,
                           rope_scaling=dict(type="longrope", long_factor=LONG, short_factor=SHORT)), [12, 16, 17, 40]),
    "phi3-short": ("phi3", small(tie_word_embeddings=True, num_attention_heads=2, num_key_value_heads=2, hidden_size=48,
                              original_max_position_embeddings=64, sliding_window=16,
                              **rope("longrope", long_factor=LONG, short_factor=SHORT)),
                dict(rope_theta=10000.0, rope_scaling=dict(type="longrope", long_factor=LONG, short_factor=SHORT)), [64, 65]),
    "smollm3": ("smollm3", small(tie_word_embeddings=True, num_hidden_layers=3, no_rope_layers=[1, 0, 1], **rope("default", 2e6)),
                dict(rope_theta=2e6, rope_scaling=None), []),
    "gemma3-full": ("gemma3_text", dict(TINY, head_dim=12, sliding_window=8, query_pre_attn_scalar=12,
                                        layer_types=["sliding_attention", "full_attention"]), None, []),
    "qwen3-full": ("qwen3", dict(TINY, head_dim=12, tie_word_embeddings=False), None, []),
    "phi3-full": ("phi3", dict(TINY, tie_word_embeddings=False, original_max_position_embeddings=256), None, []),
}

# Where families part from what one would expect: fields that count for nothing, windows by layer, odd head sizes.
L3 = dict(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16)
ODD = {
    "gemma-silu": ("gemma", small(head_dim=16, hidden_act="silu", hidden_activation="gelu_pytorch_tanh", attention_bias=True,
                                  **rope("default", 5e4)), dict(rope_theta=5e4), []),
    "gemma2-layers": ("gemma2", small(num_hidden_layers=3, head_dim=16, sliding_window=5, query_pre_attn_scalar=7,
                                      attn_logit_softcapping=5.0, final_logit_softcapping=None, hidden_activation="gelu",
                                      layer_types=["full_attention", "sliding_attention", "sliding_attention"],
                                      **rope("default")), None, []),
    "gemma3-ropes": ("gemma3_text", small(num_hidden_layers=3, head_dim=16, sliding_window=5, query_pre_attn_scalar=20,
                                          sliding_window_pattern=2, attn_logit_softcapping=2.0, final_logit_softcapping=4.0,
                                          rope_parameters=dict(
                                              full_attention=dict(rope_type="llama3", rope_theta=1e5, **L3),
                                              sliding_attention=dict(rope_type="linear", factor=2.0, rope_theta=500.0))),
                     None, [40]),
    "mistral-heads": ("mistral", small(head_dim=20, sliding_window=None, num_key_value_heads=4, hidden_act="gelu_new",
                                       **rope("llama3", 5e5, **L3)),
                      dict(rope_theta=5e5, rope_scaling=dict(rope_type="llama3", **L3)), [40]),
    "phi3-partial": ("phi3", small(hidden_size=64, sliding_window=7, tie_word_embeddings=True,
                                   **rope("default", partial_rotary_factor=0.5)),
                     dict(rope_theta=1e4, partial_rotary_factor=0.5), []),
    "qwen2-layers": ("qwen2", small(num_hidden_layers=3, use_sliding_window=True, sliding_window=6, hidden_act="gelu",
                                    layer_types=["sliding_attention", "full_attention", "sliding_attention"],
                                    max_position_embeddings=16, **rope("dynamic", factor=2.0)), None, [12, 40]),
    "smollm3-window": ("smollm3", small(num_hidden_layers=4, use_sliding_window=True, sliding_window=5, mlp_bias=True,
                                        no_rope_layer_interval=2, attention_bias=True, tie_word_embeddings=False,
                                        **rope("yarn", 2e6, factor=4.0, original_max_position_embeddings=16)),
                       dict(rope_theta=2e6, rope_scaling=dict(rope_type="yarn", factor=4.0,
                                                              original_max_position_embeddings=16)), [40]),
    # The padding token stands in the text too: its row of the embedding learns nothing there.
    "padding-full": ("llama", dict(TINY, vocab_size=16, pad_token_id=9, tie_word_embeddings=True), None, []),
}
MODELS.update(ODD)

# What a second round of odd cases found (2026-11-27).
UNEVEN = dict(SMALL, vocab_size=97, hidden_size=30, intermediate_size=50, num_attention_heads=3, num_key_value_heads=1,
              rms_norm_eps=3e-4, eos_token_id=[2, 5])
FOUND = {
    # Only phi 3 rotates a part of its heads.
    "llama-partial": ("llama", dict(UNEVEN, head_dim=12, tie_word_embeddings=True, **rope("default", partial_rotary_factor=0.5)),
                      dict(rope_theta=1e4, partial_rotary_factor=0.5), []),
    # 0.7 of 16 features are 11, which make 6 pairs.
    "phi3-odd": ("phi3", dict(UNEVEN, hidden_size=48, num_key_value_heads=3, sliding_window=3,
                              **rope("default", partial_rotary_factor=0.7)),
                 dict(rope_theta=1e4, partial_rotary_factor=0.7), [70]),
    # AutoConfig takes a mistral with layer_types for a ministral.
    "mistral-layers": ("mistral", dict(UNEVEN, num_hidden_layers=3, sliding_window=5,
                                       layer_types=["full_attention", "sliding_attention", "full_attention"]), None, [40]),
    # The trained length beside nested rope parameters counts for nothing, nor does `truncate` in them.
    "gemma3-beside": ("gemma3_text", dict(UNEVEN, head_dim=12, sliding_window=6, query_pre_attn_scalar=7,
                                          original_max_position_embeddings=16, layer_types=["full_attention", "sliding_attention"],
                                          rope_parameters=dict(
                                              full_attention=dict(rope_type="llama3", rope_theta=1e5, factor=8.0,
                                                                  low_freq_factor=1.0, high_freq_factor=4.0),
                                              sliding_attention=dict(rope_type="yarn", rope_theta=900.0, factor=4.0, truncate=False,
                                                                     original_max_position_embeddings=32))), None, [40]),
    # The gradient of k's bias in a layer without rope is zero.
    "smollm3-full": ("smollm3", dict(TINY, num_hidden_layers=3, no_rope_layers=[1, 0, 1], attention_bias=True, mlp_bias=True,
                                     tie_word_embeddings=True), None, []),
}
MODELS.update(FOUND)

# Weights that several cases share; biases everywhere, so that training them can be seen.
BASES = {
    "base-llama": ("llama", dict(BASE, tie_word_embeddings=False, attention_bias=True, mlp_bias=True)),
    "base-tied": ("qwen2", dict(BASE, num_hidden_layers=2, tie_word_embeddings=True)),
}

# ---- recipes ----------------------------------------------------------------
ALL7 = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
FUSED = ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]
TRAIN = dict(steps=20, warmup=5, lr=5e-3, betas=[0.9, 0.999], eps=1e-8, weight_decay=0.01, clip=1.0, schedule="linear",
             optimizer="adamw_torch")


def lora(**k):
    return dict(dict(r=4, lora_alpha=8, target_modules=ALL7), **k)


def model_case(name):
    full, arch = name.endswith("-full"), MODELS[name][0]
    return dict(name=name, model=name,
                lora=None if full else lora(r=2, lora_alpha=4, target_modules=FUSED if arch == "phi3" else ALL7))


def cases():
    """In an order that only grows: a case's number is its seed."""
    yield from (model_case(name) for name in MODELS if name not in ODD and name not in FOUND)
    adapters = {
        "regex-targets": lora(target_modules=r".*layers\.(0|2)\.(self_attn|mlp)\.(q|up)_proj"),
        "layers-to-transform": lora(target_modules=["q_proj", "down_proj"], layers_to_transform=[1, 2]),
        "all-linear": lora(r=1, target_modules="all-linear"),
        "exclude": lora(target_modules=ALL7, exclude_modules=["layers.0.self_attn.q_proj", "down_proj"]),
        "save-embed-head": lora(target_modules=["q_proj", "v_proj"], modules_to_save=["embed_tokens", "lm_head"]),
        "save-norms": lora(target_modules=["o_proj"], modules_to_save=["input_layernorm", "norm"]),
        "head-adapter": lora(target_modules=["v_proj", "lm_head"]),
        "bias-all": lora(target_modules=["q_proj", "down_proj"], bias="all"),
        "bias-lora-only": lora(target_modules=["q_proj", "down_proj"], bias="lora_only"),
        "patterns": lora(rank_pattern={"q_proj": 2, r"layers\.1\.mlp\..*": 6, "model.layers.2.self_attn.v_proj": 3},
                         alpha_pattern={"v_proj": 3, r"layers\.1\.mlp\.up_proj": 5}),
        "dora-rslora": lora(use_dora=True, use_rslora=True, rank_pattern={"k_proj": 2}),
        "dora-bias": lora(use_dora=True, bias="lora_only", target_modules=["q_proj", "up_proj"]),
        "pissa": lora(init_lora_weights="pissa", target_modules=["q_proj", "o_proj", "down_proj"]),
        "pissa-rslora": lora(init_lora_weights="pissa", use_rslora=True, target_modules=["v_proj", "gate_proj"]),
    }
    for name, l in adapters.items():
        yield dict(name=f"lora-{name}", base="base-llama", lora=l)
    tied = {
        "tied-save-embed": lora(target_modules=["q_proj"], modules_to_save=["embed_tokens"]),
        "tied-save-head": lora(target_modules=["q_proj"], modules_to_save=["lm_head"]),
    }
    for name, l in tied.items():
        yield dict(name=f"lora-{name}", base="base-tied", lora=l)
    # Blocks of 64 fit into its rows; peft leaves LoftQ's matrices unscaled, so alpha is the rank.
    yield dict(name="lora-loftq", base="phi3-longrope",
               lora=lora(init_lora_weights="loftq", lora_alpha=4, target_modules=["qkv_proj", "o_proj", "gate_up_proj"]))
    yield dict(name="lora-dora-phi3", base="phi3-longrope", lora=lora(use_dora=True, target_modules=FUSED))
    qv = lora(target_modules=["q_proj", "v_proj"])
    trains = {
        "accumulate": dict(micro=3),
        "smoothing": dict(label_smoothing=0.1),
        "z-loss": dict(z_loss=1e-2),
        "sgd": dict(optimizer="sgd", lr=0.3, momentum=0.9, weight_decay=0.05),
        "lion": dict(optimizer="lion_32bit", lr=1e-3, betas=[0.9, 0.99], weight_decay=0.1),
        "adafactor": dict(optimizer="adafactor", weight_decay=0.1),
        "lora-plus": dict(lora_plus=4.0, lr=2e-3, weight_decay=0.1),
        "cosine": dict(schedule="cosine"),
        "cosine-restarts": dict(schedule="cosine_with_restarts", schedule_args=dict(num_cycles=3)),
        "polynomial": dict(schedule="polynomial", schedule_args=dict(lr_end=1e-4, power=2.0)),
        "constant": dict(schedule="constant", warmup=0),
        "constant-warmup": dict(schedule="constant_with_warmup"),
        "inverse-sqrt": dict(schedule="inverse_sqrt", schedule_args=dict(timescale=9)),
        "stable-decay": dict(schedule="warmup_stable_decay", schedule_args=dict(num_decay_steps=6)),
        "no-clip": dict(clip=0.0, betas=[0.8, 0.95], eps=1e-6),
    }
    for name, t in trains.items():
        yield dict(name=f"train-{name}", base="base-llama", lora=qv, train=t)
    yield dict(name="train-adamw-8bit", base="base-llama", train=dict(optimizer="adamw_8bit", weight_decay=0.1),
               lora=lora(target_modules=["q_proj", "v_proj"], modules_to_save=["lm_head"]))
    yield dict(name="train-decay-groups", base="base-tied", lora=None,
               train=dict(weight_decay=0.3, decay_vectors=False, schedule="cosine"))
    yield from (model_case(name) for name in ODD)
    yield dict(name="lora-embedding", base="base-llama",
               lora=lora(target_modules=["q_proj", "embed_tokens"], rank_pattern={"embed_tokens": 3}, use_rslora=True))
    yield dict(name="lora-embedding-tied", base="base-tied",
               lora=lora(target_modules=["v_proj", "embed_tokens", "lm_head"], alpha_pattern={"embed_tokens": 3}))
    yield dict(name="lora-embedding-scaled", base="gemma3-full", lora=lora(target_modules=["embed_tokens"]))
    yield dict(name="train-lora-plus-all", base="base-llama", train=dict(lora_plus=4.0, lr=2e-3, weight_decay=0.3),
               lora=lora(target_modules=["embed_tokens", "q_proj"], bias="all"))
    yield from (model_case(name) for name in FOUND if name != "smollm3-full")
    found = {
        # Targets named whole count in every layer.
        "layers-named": lora(target_modules=["lm_head", "model.layers.0.self_attn.k_proj", "q_proj"], layers_to_transform=[1]),
        "layers-pattern": lora(target_modules=["q_proj", "mlp.up_proj"], layers_to_transform=[0, 2],
                               layers_pattern=["h", "model.layers"]),
        # What is trained whole is not adapted; bias "all" then saves each bias twice.
        "save-adapted": lora(target_modules=["q_proj", "k_proj", "lm_head"], modules_to_save=["k_proj", "lm_head"], bias="all"),
        "save-composite": lora(target_modules=ALL7, modules_to_save=["layers.1.mlp"]),
        # Names that match nothing.
        "unmatched": lora(target_modules=["q_proj", "c_attn"], modules_to_save=["norm", "score"], fan_in_fan_out=True),
    }
    for name, l in found.items():
        yield dict(name=f"lora-{name}", base="base-llama", lora=l)
    yield dict(name="train-adamw-8bit-full", base="base-tied", lora=None,
               train=dict(optimizer="adamw_8bit", lr=1e-3, weight_decay=0.3))
    yield model_case("smollm3-full")
