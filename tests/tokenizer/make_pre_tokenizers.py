"""Words that Rust's tokenizers 0.23.2 cuts texts into, for the patterns of the models' own tokenizer.json files, into
pre_tokenizers.json. usage: make_pre_tokenizers.py OUT"""
import json, random, sys
from tokenizers import Regex, pre_tokenizers as P
L3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN35 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
TEKKEN = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
GPT4O = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
by_regex = lambda r: P.Sequence([P.Split(Regex(r), "isolated", False), P.ByteLevel(add_prefix_space=False, use_regex=False)])
kinds = {"llama-bpe": by_regex(L3), "qwen2": by_regex(QWEN2), "qwen35": by_regex(QWEN35), "tekken": by_regex(TEKKEN), "gpt-4o": by_regex(GPT4O),
         "gpt-2": P.ByteLevel(add_prefix_space=False, use_regex=True),
         "smollm": P.Sequence([P.Digits(individual_digits=True), P.ByteLevel(add_prefix_space=False, use_regex=True)])}
# Kinds of tokenizer.json parts that src/tokenizer/json.ts rewrites for the library.
rewritten = {"digits": P.Digits(individual_digits=True), "digit runs": P.Digits(individual_digits=False),
             "metaspace": P.Metaspace("▁", "always", True), "metaspace first": P.Metaspace("▁", "first", True),
             "merged with previous": P.Split(" ", "merged_with_previous", False), "merged with next": P.Split("-", "merged_with_next", False)}
texts = ["", " ", "\n\n \n", "\t x", " Hello  World!", "Hello, y'all! How are you 😁 ?", "I'll we've DON'T they'RE HELLOworld camelCase ABCdef's", "3.14159 1,000,000 123456789012 ٣٤ Ⅷ ½ ²",
  "def f(x):\n    return x**2  # ok\n", "{\"a\": [1, 2]}//end\n/", "नमस्ते दुनिया", "こんにちは世界、元気ですか？", "你好，世界！", "안녕하세요", "مرحبا بالعالم", "Ünïcödé é ﬁ Å ǅabc", "👩‍👩‍👧‍👦👍🏽🇩🇪",
  "a\u200bb\u00a0c\u3000d", "x\x07y", "\r\n\r\nwin", "  leading", "trailing  ", "https://example.org/a?b=c&d=%20#x", "--a--b- c", "∀x∈ℝ: ⌈x⌉ = −⌊−x⌋", "K ſ 'ſ 'S"]
rnd = random.Random(7)
pools = [(0x20, 0x7e), (0xa0, 0x24f), (0x370, 0x52f), (0x590, 0x6ff), (0x900, 0xdff), (0x2000, 0x2bff), (0x3000, 0x30ff), (0x300, 0x36f), (0x1d400, 0x1d7ff)]
for _ in range(40):
    texts.append("".join("".join(chr(rnd.randint(lo, hi)) for _ in range(rnd.randint(1, 6))) + rnd.choice(["", " ", "  ", "\n", "'s", "123"]) for lo, hi in (rnd.choice(pools) for _ in range(rnd.randint(1, 5)))))
words = lambda p: [[w for w, _ in p.pre_tokenize_str(t)] for t in texts]
out = {"made_by": "make_pre_tokenizers.py, tokenizers 0.23.2", "texts": texts, "kinds": {k: words(p) for k, p in kinds.items()}, "rewritten": {k: words(p) for k, p in rewritten.items()}}
json.dump(out, open(sys.argv[1], "w"), ensure_ascii=True, separators=(",", ":"))
