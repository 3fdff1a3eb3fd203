"""Renderings of real chat templates by Python's jinja2 (jinja_environment.py), as hashes, into chat_renderings.json.
usage: make_chat_renderings.py TEMPLATES_FOLDER OUT [DUMP_FOLDER]"""
import hashlib, json, os, sys
import jinja2
from jinja_environment import env
SRC, OUT = sys.argv[1], sys.argv[2]
DUMP = sys.argv[3] if len(sys.argv) > 3 else None
weather = {"type": "function", "function": {"name": "get_weather", "description": "Weather at a place, <now> & 'later'",
  "parameters": {"type": "object", "properties": {"city": {"type": "string", "description": "City"}, "unit": {"type": "string", "enum": ["c", "f"]}}, "required": ["city"]}}}
call = {"id": "call00001", "type": "function", "function": {"name": "get_weather", "arguments": {"city": "Zürich", "unit": "c"}}}
U, A, S = (lambda t: {"role": "user", "content": t}), (lambda t: {"role": "assistant", "content": t}), (lambda t: {"role": "system", "content": t})
cases = {
  "user": ([U("Hi <b>&amp; \"quotes\" 😁")], None, True),
  "turns": ([S("Be brief."), U(" What is 2+2? "), A("4"), U("Why?\nExplain.")], None, True),
  "answer": ([U("Hi"), A("Hello\n\nthere.")], None, False),
  "tools": ([U("Weather?")], [weather], True),
  "call": ([U("Weather?"), {"role": "assistant", "content": "", "tool_calls": [call]}, {"role": "tool", "name": "get_weather", "tool_call_id": "call00001", "content": "{\"t\": 21}"}, A("21 degrees.")], [weather], False),
}
specials = {"bos_token": "<s>", "eos_token": "</s>"}
out = {}
for name in sorted(os.listdir(SRC)):
    if not name.endswith(".jinja"): continue
    text = open(os.path.join(SRC, name), encoding="utf-8").read()
    row = out[name[:-6]] = {}
    for case, (messages, tools, prompt) in cases.items():
        try:
            r = env.from_string(text).render(messages=json.loads(json.dumps(messages)), tools=tools, documents=None, add_generation_prompt=prompt, **specials)
            row[case] = hashlib.sha256(r.encode()).hexdigest()[:16]
            if DUMP: open(os.path.join(DUMP, f"{name[:-6]}.{case}.txt"), "w", encoding="utf-8", newline="").write(r)
        except Exception as e:
            row[case] = None
            if DUMP: open(os.path.join(DUMP, f"{name[:-6]}.{case}.err"), "w").write(f"{type(e).__name__}: {e}")
json.dump({"made_by": "make_chat_renderings.py, jinja2 " + jinja2.__version__, "date": "2024-07-26 09:05", "specials": specials,
  "cases": {k: {"messages": m, "tools": t, "add_generation_prompt": p} for k, (m, t, p) in cases.items()}, "templates": out}, open(OUT, "w"), ensure_ascii=True, indent=1)
