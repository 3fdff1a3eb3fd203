"""Right answers for src/models/rope.ts from transformers' own config classes and rope functions.

usage: make_ropes.py OUT.json     (transformers 5.17, torch 2.11)
Each case: a config as a file would hold it (both forms), the model type, and per length the frequencies of each kind of
layer with the attention factor.
"""
import json
import sys
import torch
from transformers import AutoConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

BASE = dict(vocab_size=32, hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=256)
LONG = [1.0 + 0.5 * i for i in range(6)]
SHORT = [1.0 + 0.01 * i for i in range(6)]
SCALINGS = {
    "default": {}, "linear": {"factor": 4.0}, "dynamic": {"factor": 3.0},
    "llama3": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64},
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 64},
    "yarn-more": {"factor": 8.0, "original_max_position_embeddings": 32, "beta_fast": 16.0, "beta_slow": 2.0, "mscale": 1.0,
                  "mscale_all_dim": 0.5, "truncate": False},
    "yarn-given": {"factor": 2.0, "original_max_position_embeddings": 128, "attention_factor": 0.9},
}


def answers(model_type, fields, lengths):
    cfg = AutoConfig.for_model(model_type, **json.loads(json.dumps(fields)))
    params = cfg.rope_parameters
    kinds = {k: v for k, v in params.items() if isinstance(v, dict)} or {None: params}
    out = []
    for kind, p in kinds.items():
        for n in lengths:
            if p["rope_type"] == "default":
                dim = int(cfg.head_dim * p.get("partial_rotary_factor", 1.0)) if hasattr(cfg, "head_dim") else int(
                    cfg.hidden_size // cfg.num_attention_heads * p.get("partial_rotary_factor", 1.0))
                freqs, factor = 1.0 / (p["rope_theta"] ** (torch.arange(0, dim, 2).float() / dim)), 1.0
            else:
                freqs, factor = ROPE_INIT_FUNCTIONS[p["rope_type"]](cfg, None, seq_len=n, layer_type=kind)
            out.append(dict(kind=kind, length=n, freqs=freqs.tolist(), factor=factor))
    return out


cases = []
for name, scaling in SCALINGS.items():
    kind = name.split("-")[0]
    new = dict(BASE, model_type="llama", rope_parameters=dict(scaling, rope_type=kind, rope_theta=50000.0))
    old = dict(BASE, model_type="llama", rope_theta=50000.0, rope_scaling=dict(scaling, type=kind) if scaling else None)
    older = dict(BASE, model_type="llama", rope_theta=50000.0, rope_scaling=dict(scaling, rope_type=kind) if scaling else None)
    want = answers("llama", {k: v for k, v in new.items() if k != "model_type"}, [100, 700])
    cases += [dict(name=f"{name} {form}", config=c, answers=want) for form, c in
              (("rope_parameters", new), ("rope_scaling.type", old), ("rope_scaling.rope_type", older))]
for form, extra in (
    ("rope_parameters", dict(rope_parameters=dict(rope_type="longrope", rope_theta=10000.0, long_factor=LONG, short_factor=SHORT,
                                                  partial_rotary_factor=0.75))),
    ("rope_scaling su", dict(rope_theta=10000.0, partial_rotary_factor=0.75,
                             rope_scaling=dict(type="su", long_factor=LONG, short_factor=SHORT))),
):
    c = dict(BASE, model_type="phi3", original_max_position_embeddings=128, pad_token_id=0, **extra)
    first = c if form == "rope_parameters" else cases[-1]["config"]
    cases.append(dict(name=f"phi3 longrope {form}", config=c,
                      answers=answers("phi3", {k: v for k, v in first.items() if k != "model_type"}, [100, 200])))
for form, extra in (
    ("rope_parameters", dict(rope_parameters={"full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                                              "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}})),
    ("rope_scaling", dict(rope_theta=1e6, rope_local_base_freq=1e4, rope_scaling=dict(rope_type="linear", factor=8.0))),
):
    c = dict(BASE, model_type="gemma3_text", head_dim=16, sliding_window_pattern=2, **extra)
    cases.append(dict(name=f"gemma3 {form}", config=c,
                      answers=answers("gemma3_text", {k: v for k, v in c.items() if k != "model_type"}, [100])))
json.dump(cases, open(sys.argv[1], "w"))
print(len(cases))
