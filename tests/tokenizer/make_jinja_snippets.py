"""Small templates by Python's jinja2, set up as transformers does it (see make_chat_renderings.py), into jinja_snippets.json.
usage: make_jinja_snippets.py jinja_snippets.json   (rewrites the results; null: Python raises)"""
import datetime, json, sys
import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
class Generation(Extension):
    tags = {"generation"}
    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)
    def _body(self, caller): return caller()
def raise_exception(m): raise jinja2.exceptions.TemplateError(m)
def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
env.filters["tojson"] = tojson
env.globals["raise_exception"] = raise_exception
env.globals["strftime_now"] = lambda f: datetime.datetime(2024, 7, 26, 9, 5).strftime(f)
table = json.load(open(sys.argv[1], encoding="utf-8"))
def render(text):
    try: return env.from_string(text).render(**table["variables"])
    except Exception: return None
table["made_by"] = "make_jinja_snippets.py, jinja2 " + jinja2.__version__
table["snippets"] = [[text, render(text)] for text, _ in table["snippets"]]
json.dump(table, open(sys.argv[1], "w", encoding="utf-8"), ensure_ascii=True, indent=1)
