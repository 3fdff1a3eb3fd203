"""Right answers for src/models/adapter.ts: which tensors peft trains, by its settings. usage: make_targets.py OUT.json

(peft 0.21, transformers 5.17 to 5.23, torch 2.11 to 2.15.) Names are named_parameters' without `base_model.model.` and `.default`.
"""
import json
import sys
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

BASE = dict(vocab_size=37, hidden_size=12, intermediate_size=20, num_hidden_layers=3, num_attention_heads=4,
            num_key_value_heads=2, head_dim=6, max_position_embeddings=16, pad_token_id=0, eos_token_id=2, bos_token_id=1)
LLAMA = dict(BASE, model_type="llama", attention_bias=True, mlp_bias=True, tie_word_embeddings=False)
TIED = dict(BASE, model_type="llama", tie_word_embeddings=True)
PHI3 = {k: v for k, v in dict(BASE, model_type="phi3", hidden_size=24, tie_word_embeddings=False).items() if k != "head_dim"}
QV = ["q_proj", "v_proj"]
CASES = [
    (LLAMA, dict(target_modules=QV)),
    (LLAMA, dict(target_modules="all-linear")),
    (PHI3, dict(target_modules="all-linear")),
    (LLAMA, dict(target_modules=r".*\.(0|2)\..*(down_proj|o_proj)")),
    (LLAMA, dict(target_modules=["mlp.up_proj", "model.layers.1.self_attn.k_proj"])),
    (LLAMA, dict(target_modules=QV, layers_to_transform=[0, 2])),
    (LLAMA, dict(target_modules=QV + ["o_proj"], exclude_modules=["v_proj"])),
    (LLAMA, dict(target_modules=QV, exclude_modules=r".*layers\.1\..*")),
    (LLAMA, dict(target_modules=QV + ["lm_head"])),
    (LLAMA, dict(target_modules=QV + ["gate_proj"], rank_pattern={"q_proj": 3, r"layers\.1\..*gate_proj": 5},
                 alpha_pattern={"v_proj": 10, r"^model.layers.2.*": 6})),
    (LLAMA, dict(target_modules=QV, use_rslora=True, rank_pattern={"q_proj": 9})),
    (LLAMA, dict(target_modules=QV, use_dora=True)),
    (LLAMA, dict(target_modules=QV, bias="all")),
    (LLAMA, dict(target_modules=QV, bias="lora_only")),
    (LLAMA, dict(target_modules=QV, modules_to_save=["embed_tokens", "lm_head"])),
    (LLAMA, dict(target_modules=QV, modules_to_save=["norm", "input_layernorm"])),
    (LLAMA, dict(target_modules=QV, modules_to_save=["k_proj"], bias="all")),
    (TIED, dict(target_modules=QV, modules_to_save=["lm_head"])),
    (TIED, dict(target_modules=QV, modules_to_save=["embed_tokens"])),
    (LLAMA, dict(target_modules=["lm_head", "model.layers.0.self_attn.k_proj", "q_proj"], layers_to_transform=[1])),
    (LLAMA, dict(target_modules=QV, layers_to_transform=2, layers_pattern=["h", "model.layers"])),
    (LLAMA, dict(target_modules=QV, layers_to_transform=[], layers_pattern=[])),
    (LLAMA, dict(target_modules=QV + ["lm_head"], modules_to_save=["v_proj", "lm_head"], bias="lora_only")),
    (TIED, dict(target_modules="all-linear", modules_to_save=["embed_tokens", "lm_head"])),
]
out = []
for fields, lora in CASES:
    cfg = AutoConfig.for_model(fields["model_type"], **{k: v for k, v in fields.items() if k != "model_type"})
    model = get_peft_model(AutoModelForCausalLM.from_config(cfg), LoraConfig(r=2, lora_alpha=4, task_type="CAUSAL_LM", **lora))
    short = lambda n: n.replace("base_model.model.", "").replace(".default", "")
    trained = {short(n): list(p.shape) for n, p in model.named_parameters() if p.requires_grad}
    scales = {short(n): m.scaling["default"] for n, m in model.named_modules() if isinstance(getattr(m, "scaling", None), dict) and m.scaling}
    out.append(dict(config=fields, lora=lora, trained=trained, scales=scales))
json.dump(out, open(sys.argv[1], "w"))
print([len(c["trained"]) for c in out])
