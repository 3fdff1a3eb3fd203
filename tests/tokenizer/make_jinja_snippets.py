"""Small templates by Python's jinja2 (jinja_environment.py), into jinja_snippets.json.
usage: make_jinja_snippets.py jinja_snippets.json   (rewrites the results; null: Python raises)"""
import json, sys
import jinja2
from jinja_environment import env
table = json.load(open(sys.argv[1], encoding="utf-8"))
def render(text):
    try: return env.from_string(text).render(**table["variables"])
    except Exception: return None
table["made_by"] = "make_jinja_snippets.py, jinja2 " + jinja2.__version__
table["snippets"] = [[text, render(text)] for text, _ in table["snippets"]]
json.dump(table, open(sys.argv[1], "w", encoding="utf-8"), ensure_ascii=True, indent=1)
