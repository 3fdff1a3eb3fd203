"""Right answers for src/train/schedule.ts from transformers' get_scheduler. usage: make_schedules.py OUT.json"""
import json
import sys
import torch
from transformers import get_scheduler

CASES = [
    ("linear", {}), ("cosine", {}), ("cosine", {"num_cycles": 1.25}), ("cosine_with_restarts", {}),
    ("cosine_with_restarts", {"num_cycles": 3}), ("polynomial", {}), ("polynomial", {"lr_end": 1e-4, "power": 2.0}),
    ("constant", {}), ("constant_with_warmup", {}), ("inverse_sqrt", {}), ("inverse_sqrt", {"timescale": 9}),
    ("warmup_stable_decay", {"num_decay_steps": 7}),
    ("warmup_stable_decay", {"num_decay_steps": 5, "num_stable_steps": 6, "min_lr_ratio": 0.1, "decay_type": "linear",
                             "warmup_type": "cosine"}),
    ("warmup_stable_decay", {"num_decay_steps": 7, "decay_type": "1-sqrt", "warmup_type": "1-sqrt"}),
]
out = []
for name, extra in CASES:
    for warmup in (0, 4):
        opt = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=3e-3)
        s = get_scheduler(name, opt, num_warmup_steps=warmup, num_training_steps=25, scheduler_specific_kwargs=dict(extra))
        rates = []
        for _ in range(28):
            rates.append(s.get_last_lr()[0])
            opt.step()
            s.step()
        out.append({"name": name, "args": extra, "warmup": warmup, "total": 25, "lr": 3e-3, "rates": rates})
json.dump(out, open(sys.argv[1], "w"))
