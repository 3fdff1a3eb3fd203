#!/usr/bin/env python3
"""Slips that an author of cuda/host could make, one at a time: each must be noticed by the tests, by a sanitizer, or by the
fake runtime's rules. host_mutants.py ROOT WORK: WORK has the objects of run.sh's builds `plain` and `asan`. Without WORK,
only whether each slip can still be made."""
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

# What products wait for: file, what is there, what a slip would put there
PENDING = [
    ('pending_state.cpp', 'if (meet(s[i].of, written)) s.erase(s.begin() + static_cast<long>(i));', ';'),
    ('pending_state.cpp', 'if (same(s.of, result)) return s.copy;', 'if (s.of.p == result.p) return s.copy;'),
    ('pending_state.cpp', 'p.shadows.clear(), p.ring_at = 0;\n  }', 'p.ring_at = 0;\n  }'),
    ('pending_state.cpp', 'if (p.ring_at + bytes > RING) {\n    if ((rc = flush_pending())) return nullptr;', 'if (p.ring_at + bytes > RING) {'),
    ('pending_state.cpp', 'p.ring_at += bytes;', 'p.ring_at += bytes / 2;'),
    ('pending.cpp', 'if (!p.empty() && (p.rows != rows || p.dtype != dtype))', 'if (!p.empty() && p.dtype != dtype)'),
    ('pending.cpp', 'if (!p.empty() && (p.rows != rows || p.dtype != dtype))', 'if (!p.empty() && p.rows != rows)'),
    ('pending.cpp', 'if (x.c == g.c && x.N == g.N &&', 'if (x.c == g.c &&'),
    ('pending.cpp', 'p.dtype != g.c_type || p.b_by_k != !g.trans_b) return nullptr;', 'p.dtype != g.c_type) return nullptr;'),
    ('pending.cpp', '!waiting_for(g) || g.beta != 1.0f || g.bias || p.segments', '!waiting_for(g) || g.bias || p.segments'),
    ('pending.cpp', 'p.segments == MAX_SEGMENTS || g.K > 256', 'g.K > 256'),
    ('pending.cpp', 'p.b_by_k) || is_written(b_of(g)) ||', 'p.b_by_k) ||'),
    ('pending.cpp', 'if (!shadow_of(a_of(g)) && is_written(a_of(g))) return false;', ';'),
    ('pending.cpp', 'if (!a) a = g.a, p.reads.push_back(a_of(g));', 'if (!a) a = g.a;'),
    ('pending.cpp', 'p.reads.push_back(b_of(g));\n  p.casts', 'p.casts'),
    ('pending.cpp', 'b, g.N * g.K, g.alpha});', 'b, g.N * g.K, 1.0f});'),
    ('pending.cpp', 'if (g.alpha != 1.0f || g.K < 64', 'if (g.K < 64'),
    ('pending.cpp', 'const bool room = p.segments < MAX_SEGMENTS && (x || p.products.size() < MAX_PRODUCTS);', 'const bool room = true;'),
    ('pending.cpp', '&& p.e4m3 == e4m3)', ')'),
    ('pending_flush.cpp', ', p.e4m3 = all.e4m3;', ';'),
    ('pending.cpp', 'us_bytes(static_cast<uint32_t>(g.b_type), g.N * g.K)}', 'g.N * g.K}'),
    ('pending.cpp', '!room || is_written(a_of(g)) ||', '!room ||'),
    ('pending.cpp', '|| is_written(b_of(g)) || is_written(bias)', '|| is_written(bias)'),
    ('pending.cpp', '|| is_written(bias) || is_read(c_of(g)) ||', '|| is_read(c_of(g)) ||'),
    ('pending.cpp', '|| is_written(bias) || is_read(c_of(g)) ||', '|| is_written(bias) ||'),
    ('pending.cpp', '||\n      (!x && is_written(c_of(g)))) {', ') {'),
    ('pending.cpp', 'x = nullptr;\n  }\n  forget_shadows(c_of(g));', 'x = nullptr;\n  }'),
    ('pending.cpp', 'g.beta == 1.0f ? g.c : nullptr, 0, {}', 'nullptr, 0, {}'),
    ('pending.cpp', 'for (const Span& s : {a_of(g), b_of(g), bias}) p.reads', 'for (const Span& s : {a_of(g), b_of(g)}) p.reads'),
    ('pending.cpp', 'for (const Span& s : {a_of(g), b_of(g), bias}) p.reads', 'for (const Span& s : {a_of(g), bias}) p.reads'),
    ('pending.cpp', 't.c[i] = nullptr;', ';'),
    ('pending.cpp', 'if (!alike || made || is_written(a_of(g)) ||', 'if (!alike || made ||'),
    ('pending.cpp', 'is_written(a_of(g)) || is_written(b_of(g)) || is_read(c_of(g)) || (is_written(c_of(g)) &&', 'is_written(a_of(g)) || is_read(c_of(g)) || (is_written(c_of(g)) &&'),
    ('pending.cpp', 'is_written(b_of(g)) || is_read(c_of(g)) || (is_written(c_of(g)) && !supersede(c_of(g)))', 'is_written(b_of(g)) || (is_written(c_of(g)) && !supersede(c_of(g)))'),
    ('pending.cpp', '|| is_read(c_of(g)) || (is_written(c_of(g)) && !supersede(c_of(g))))', '|| is_read(c_of(g)))'),
    ('pending.cpp', 't.count < MAX_SHARING && (t.count + 1) * t.r <= 64 &&', 't.count < MAX_SHARING &&'),
    ('pending.cpp', '&&\n        wide_fits_sm90(t, t.count + 1) == wide)', ')'),
    ('pending_flush.cpp', 'ready = ready && x.thin[0] != m;', ';'),
    ('pending_flush.cpp', 'x.wide != t.a || ', ''),
    ('pending_flush.cpp', 'if (t.count != 1 || x.count != 1 ||', 'if (x.count != 1 ||'),
    ('pending_flush.cpp', 'if (!rc && !p.casts.empty()) rc = cast_adapters', 'if (false) rc = cast_adapters'),
    ('pending_flush.cpp', 'if (!rc && n > 0) rc = round_inputs(p.dtype, p.rows, rounded, n);', ';'),
    ('pending_flush.cpp', 'return (w.tall.wide ? 1 : 0) + (w.to8 ? 2 : 0);', 'return 0;'),
    ('pending.cpp', 'if (!with && p.thins.size() == MAX_THIN)', 'if (false)'),
    ('pending.cpp', ', with->alpha[i] = one.alpha[0];', ';'),
    ('pending.cpp', 'p.reads.push_back(a_of(g)), p.reads.push_back(b_of(g)), p.writes.push_back(c_of(g));', 'p.reads.push_back(b_of(g)), p.writes.push_back(c_of(g));'),
    ('pending.cpp', 'p.reads.push_back(a_of(g)), p.reads.push_back(b_of(g)), p.writes.push_back(c_of(g));', 'p.reads.push_back(a_of(g)), p.writes.push_back(c_of(g));'),
    ('pending.cpp', 'p.reads.push_back(a_of(g)), p.reads.push_back(b_of(g)), p.writes.push_back(c_of(g));', 'p.reads.push_back(a_of(g)), p.reads.push_back(b_of(g));'),
    ('pending.cpp', 'if (is_written(wide) || is_written(c_of(g)) ||', 'if (is_written(c_of(g)) ||'),
    ('pending.cpp', 'if (is_written(wide) || is_written(c_of(g)) ||', 'if (is_written(wide) ||'),
    ('pending.cpp', 'is_read(c_of(g)) || (!shadow_of(thin) && (', '(!shadow_of(thin) && ('),
    ('pending.cpp', '(!shadow_of(thin) && (is_written(thin) ||', '(!shadow_of(thin) && (false ||'),
    ('pending.cpp', 'else p.reads.push_back(thin);', ';'),
    ('pending.cpp', 'if (!read_input(t, room)) p.reads.push_back(wide);', 'read_input(t, room);'),
    ('pending.cpp', 'p.writes.push_back(c_of(g));\n  forget_shadows(c_of(g));\n  for (Tall', 'forget_shadows(c_of(g));\n  for (Tall'),
    ('pending.cpp', 'w.by_rank == t.by_rank &&', ''),
    ('pending.cpp', 'w.alpha[w.count] = t.alpha[0], w.count++;', 'w.count++;'),
    ('pending_flush.cpp', '&& kind_of(left[i]) == kind) now', ') now'),
    ('pending_flush.cpp', 'if (left[i].r == r && left[i].count == n', 'if (left[i].r == r'),
    ('pending_flush.cpp', 'p.rows = all.rows, p.dtype', 'p.dtype'),
    ('pending_state.cpp', 'touched = touched || is_written(reads[i]) ||', 'touched = touched ||'),
    ('pending_state.cpp', 'touched = touched || is_written(writes[i]) || is_read(writes[i]) ||', 'touched = touched || is_written(writes[i]) ||'),
    ('pending_state.cpp', 'touched = touched || is_written(writes[i]) || is_read(writes[i]) ||', 'touched = touched || is_read(writes[i]) ||'),
    ('pending_state.cpp', 'forget_shadows(writes[i]);', ';'),
    ('pending.cpp', 'reinterpret_cast<uintptr_t>(x.p) % 16) return false;', 'false) return false;'),
    ('pending.cpp', 'p.rotation.table || is_written(span_of(x))) continue;', 'p.rotation.table) continue;'),
    ('pending.cpp', '|| p.addend || p.rotation.table || is_written(span_of(x))) continue;', '|| p.rotation.table || is_written(span_of(x))) continue;'),
    ('pending.cpp', 'is_written(b_of(g)) || is_made_first(b_of(g))) return false;', 'is_written(b_of(g))) return false;'),
    ('pending.cpp', 'if (!alike || made ||', 'if (!alike ||'),
    ('pending.cpp', '(is_written(thin) || is_made_first(thin))))', 'is_written(thin)))'),
    ('pending.cpp', 'w.columns.p == t.columns.p &&', ''),
    ('pending.cpp', 'if (x.copy[i] != t.thin[0] || x.scaled[i]', 'if (x.scaled[i]'),
    ('pending.cpp', 'if (!read_input(t, room)) p.reads.push_back(wide);', 'read_input(t, room);'),
    ('pending.cpp', 'same(wide, span_of(p.renorm.out))', 'meet(wide, span_of(p.renorm.out))'),
    ('pending.cpp', 'if ((pending().glu.held() || pending().norm.held()) && (rc', 'if (pending().norm.held() && (rc'),
    ('pending.cpp', 'if ((pending().glu.held() || pending().norm.held()) && (rc', 'if (pending().glu.held() && (rc'),
    ('pending_norm.cpp', 'if ((pending().glu.held() || pending().norm.held()) && (rc', 'if (pending().norm.held() && (rc'),
    ('pending_norm.cpp', 'if ((pending().glu.held() || pending().norm.held()) && (rc', 'if (pending().glu.held() && (rc'),
    ('pending_norm.cpp', 'kind != US_RMS || b ||', 'b ||'),
    ('pending_norm.cpp', 'kind != US_RMS || b ||', 'kind != US_RMS ||'),
    ('pending_norm.cpp', 'if (out.bytes != x.bytes || ', 'if ('),
    ('pending_norm.cpp', 'stat.dtype != F32 || ', ''),
    ('pending_norm.cpp', 'stat.numel != 2 * x.rows || ', ''),
    ('pending_norm.cpp', ' || w.numel != x.cols) return', ') return'),
    ('pending_norm.cpp', 'reinterpret_cast<uintptr_t>(t->p) % 16 || ', ''),
    ('pending_norm.cpp', 'meet(span_of(out), span_of(*t)) || ', ''),
    ('pending_norm.cpp', ' || meet(span_of(stat), span_of(*t))) return', ') return'),
    ('pending_norm.cpp', 'if (meet(span_of(out), span_of(stat))) return false;', ';'),
    ('pending_norm.cpp', 'if ((rc = admit(x.rows, x.dtype))) return true;', ';'),
    ('pending_norm.cpp', 'p.reads.push_back(span_of(x)), ', ''),
    ('pending_norm.cpp', ', p.reads.push_back(span_of(w));', ';'),
    ('pending_norm.cpp', 'bool can = t.a == h.out.p &&', 'bool can ='),
    ('pending_norm.cpp', '&& t.K == h.x.cols &&', '&&'),
    ('pending_norm.cpp', '&& wide_fits_sm90(t, t.count) &&', '&&'),
    ('pending_norm.cpp', ' && wide_norm_fits_sm90(t.K, t.count);', ';'),
    ('pending_norm.cpp', 'can = can && !meet(c, span_of(h.stat));', ';'),
    ('pending_norm.cpp', 'h.w.dtype, h.eps, h.plus_one}}', 'h.w.dtype, h.eps, false}}'),
    ('pending_norm.cpp', 'US_RMS, h.eps, h.plus_one);', 'US_RMS, h.eps, false);'),
    ('pending_flush.cpp', 'if (!rc && p.norm.held()) rc = run_norm(p, rounded, n);\n  if (!rc) rc = run_thins(p, rounded, n);', 'if (!rc) rc = run_thins(p, rounded, n);\n  if (!rc && p.norm.held()) rc = run_norm(p, rounded, n);'),
    ('pending_state.cpp', ', &n.out, &n.stat}', ', &n.stat}'),
    ('pending_state.cpp', ', &n.out, &n.stat}', ', &n.out}'),
    ('pending.cpp', 'if (pending().renorm.held() && (rc = flush_pending())) return true;', ';'),
    ('pending.cpp', 'if (*t) p.reads.push_back(span_of(*t));', ';'),
    ('pending.cpp', 'for (const Ten* t : {&x, &stat, &w}) p.reads', 'for (const Ten* t : {&x, &stat}) p.reads'),
    ('pending.cpp', 'for (const Ten* t : {&x, &stat, &w}) p.reads', 'for (const Ten* t : {&stat, &w}) p.reads'),
    ('pending.cpp', 'same(x, span_of(n.out))) n.forgotten', 'true) n.forgotten'),
    ('pending.cpp', 'same(x, span_of(g.h))) g.h_forgotten', 'true) g.h_forgotten'),
    ('pending_state.cpp', 'is_written(reads[i]) || is_made_first(reads[i]);', 'is_written(reads[i]);'),
    ('pending_state.cpp', '{&g.h, &g.d_gate, &g.d_up, &again.out,', '{&g.d_gate, &g.d_up, &again.out,'),
    ('pending_state.cpp', '{&g.h, &g.d_gate, &g.d_up, &again.out,', '{&g.h, &g.d_gate, &g.d_up,'),
    ('pending_flush.cpp', ', made.insert(made.end(), t.scaled, t.scaled + t.count);', ';'),
    ('pending_flush.cpp', 'ready = ready && t.copy[i] != w.thin[0] && t.scaled[i] != w.thin[0];', ';'),
    ('pending_flush.cpp', 'return forgotten && readers == known;', 'return forgotten;'),
    ('pending_flush.cpp', 'return forgotten && readers == known;', 'return readers == known;'),
    ('pending_flush.cpp', 'wanted = wanted || meet(s, span_of(n.out));', ';'),
    ('pending_flush.cpp', 'bool wanted = !n.forgotten;', 'bool wanted = false;'),
    ('pending_flush.cpp', 'bool whole = p.thin_by_k == backward;', 'bool whole = true;'),
    ('pending_flush.cpp', 'for (int i = 0; i < tall_count; i++) talls[i]->count = 0;', ';'),
    ('pending.cpp', 'pending().reads.push_back(span_of(x));', ';'),
    ('device.cpp', 'if ((rc = settle(nullptr, 0, writes, 1))) return rc;', ';'),
    ('device.cpp', 'if ((rc = enter(s)) || (rc = flush_pending())) return nullptr;', 'if ((rc = enter(s))) return nullptr;'),
    ('device.cpp', 'drop_pending();  // the recording writes the ring', ';'),
    ('device.cpp', 's.capturing = true, drop_pending();', 's.capturing = true;'),
    ('device.cpp', 'int unfinished = flush_pending();', 'int unfinished = 0;'),
    ('device.cpp', 'if (const int rc = settle(nullptr, 0, writes, 1)) return rc;\n  return fill', 'return fill'),
    ('ops.cpp', 'if (a.written) writes[w++]', 'if (false) writes[w++]'),
    ('ops.cpp', 'if (SETTLE)', 'if (false)'),
    ('ops.cpp', 'rc = settle(by, 2, &x, 1);', 'rc = 0;'),
    ('ops.cpp', 'rc = settle(by, 2, &x, 1);', 'rc = settle(&x, 1, by, 2);'),
    ('pending.cpp', '&& x.N == g.N && !x.rotation.table) return &x;', '&& x.N == g.N) return &x;'),
    ('pending.cpp', '|| p.rotation.table || is_written(span_of(x))) continue;', '|| is_written(span_of(x))) continue;'),
    ('pending_state.cpp', 'if (meet(t.pos, written) || meet(t.freqs, written)) t = {};', 'if (meet(t.freqs, written)) t = {};'),
    ('pending_state.cpp', 'if (meet(t.pos, written) || meet(t.freqs, written)) t = {};', 'if (meet(t.pos, written)) t = {};'),
    ('pending_rope.cpp', 'same(t.pos, span_of(pos)) && ', ''),
    ('pending_rope.cpp', 'same(t.freqs, span_of(freqs)) && ', ''),
    ('pending_rope.cpp', ' && t.factor == factor) return', ') return'),
    ('pending_rope.cpp', 'if (p.rotation.table) return nullptr;', ';'),
    ('pending_rope.cpp', 'if (all.dtype != x.dtype || ', 'if ('),
    ('pending_rope.cpp', ' || all.rows != x.shape[0]) return', ') return'),
    ('pending_rope.cpp', 'pos.numel != x.shape[0] || ', ''),
    ('pending_rope.cpp', 'pos.dtype != I32 || ', ''),
    ('pending_rope.cpp', ' || freqs.dtype != F32) return', ') return'),
    ('pending_rope.cpp', 'for (const Ten* t : {&pos, &freqs})', 'for (const Ten* t : {&freqs})'),
    ('pending_rope.cpp', 'for (const Ten* t : {&pos, &freqs})', 'for (const Ten* t : {&pos})'),
    ('pending_rope.cpp', 'all.rows * p.N * 2 == x.bytes && ', ''),
    ('pending_rope.cpp', '&& !p.addend && ', '&& '),
    ('pending_rope.cpp', '&& !p.rotation.table && ', '&& '),
    ('pending_rope.cpp', 'half, all.e4m3))', 'half, false))'),
    ('pending_rope.cpp', 'if (r.table) return nullptr;', ';'),
    ('pending_rope.cpp', '|| x.shape[2] != 2 * half) return', ') return'),
    ('pending_rope.cpp', 'alike = t.dtype == x.dtype;', 'alike = true;'),
    ('pending_rope.cpp', 'for (int k = 0; k < 3; k++) alike', 'for (int k = 1; k < 3; k++) alike'),
    ('pending_rope.cpp', 'for (int k = 0; k < 3; k++) alike', 'for (int k = 0; k < 1; k++) alike'),
    ('pending_rope.cpp', 't.p == x.p && alike', 'alike'),
    ('pending_rope.cpp', '&& alike && !a.turn[i].table)', '&& alike)'),
    ('pending_rope.cpp', 'if (pending().attention.waits && ', 'if (false && '),
    ('pending_rope.cpp', '(i < 3 ? all.writes', '(i < 2 ? all.writes'),
    ('pending_rope.cpp', 'a.waits = true, a.o = o;', 'a.waits = true;'),
    ('pending_rope.cpp', 'a.turn[0], a.turn[1])', 'a.turn[1], a.turn[0])'),
    ('pending_flush.cpp', 'int rc = run_attention_bwd(p.attention), n = 0;', 'int rc = US_OK, n = 0;'),
    ('pending_flush.cpp', 'std::swap(p.attention, all.attention);', 'p.attention = all.attention;'),
    ('pending_rope.cpp', 'static_cast<int>(freqs.numel), sign}', 'static_cast<int>(freqs.numel), 1}'),
    ('ops.cpp', 'const int rc = settle(reads, 2, writes, 1);', 'const int rc = 0;'),
]
# The same with a ring that has room for all of a feed-forward's backward
ROOMY = [
    ('pending_flush.cpp', 'known + segments_of(p, *to[i])', 'known + 1 + segments_of(p, *to[i])'),
    ('pending_flush.cpp', 'rounded_of(results[i]->p, results[i]->cols, rounded, rounded_count)', 'rounded_of(results[0]->p, results[0]->cols, rounded, rounded_count)'),
    ('pending_flush.cpp', 'pass.scale8[i] = to[i]->scale, to[i]->done = true;', 'pass.scale8[i] = to[i]->scale;'),
    ('pending.cpp', 'same(x, span_of(g.d_gate))) g.d_gate_forgotten', 'true) g.d_gate_forgotten'),
    ('pending.cpp', 'same(x, span_of(g.d_up))) g.d_up_forgotten', 'true) g.d_up_forgotten'),
]

# What an operation reads and writes
ROLES = [
    ('ops.cpp', 'out(a->out), out(a->stat)', 'out(a->out), a->stat'),
    ('ops.cpp', 'maybe_out(a->db), a->d_out, a->x, a->w', 'maybe_out(a->db), a->d_out, a->x, out(a->w)'),
    ('ops.cpp', 'out(a->dx), maybe_out(a->dw), maybe_out(a->db)', 'out(a->dx), maybe_out(a->dw), maybe(a->db)'),
    ('ops.cpp', 'out(a->out), out(a->lse)', 'out(a->out), a->lse'),
    ('ops.cpp', 'out(a->dq), out(a->dk), out(a->dv)', 'out(a->dq), out(a->dk), a->dv'),
    ('ops.cpp', 'out(a->kc), out(a->vc)', 'out(a->kc), a->vc'),
    ('ops.cpp', 'out(a->d_gate), maybe_out(a->d_up), out(a->h)', 'out(a->d_gate), maybe_out(a->d_up), a->h'),
    ('ops.cpp', 'out(a->d_gate), maybe_out(a->d_up), out(a->h)', 'out(a->d_gate), maybe(a->d_up), out(a->h)'),
    ('ops.cpp', 'out(a->loss), out(a->logits)', 'out(a->loss), a->logits'),
    ('ops.cpp', 'by[] = {span_of(t[1]), span_of(t[2])}', 'by[] = {span_of(t[1]), span_of(t[1])}'),
    ('ops.cpp', 'op({out(a->hyper), a->sum_sq}', 'op({a->hyper, a->sum_sq}'),
    ('ops.cpp', 'a->g, maybe_out(a->m), a->hyper', 'a->g, maybe(a->m), a->hyper'),
    ('ops.cpp', 'out(a->absmax), a->codes', 'a->absmax, a->codes'),
    ('ops.cpp', 'maybe_out(a->row), out(a->col)', 'maybe(a->row), out(a->col)'),
    ('ops.cpp', 'op({out(a->out), a->x, a->magnitude', 'op({out(a->out), out(a->x), a->magnitude'),
    ('ops.cpp', 'const Span reads[] = {span_of(t[1]), span_of(t[2])}', 'const Span reads[] = {span_of(t[1]), span_of(t[1])}'),
    ('offload.cpp', 'if (const int rc = settle(reads, 1, nullptr, 0)) return rc;', 'if (const int rc = settle(nullptr, 0, reads, 1)) return rc;'),
    ('offload.cpp', 'if (const int rc = settle(nullptr, 0, writes, 1)) return rc;', 'if (const int rc = settle(writes, 1, nullptr, 0)) return rc;'),
]
# Handles, memory, recordings, failures
REST = [
    ('library.cpp', 'if (s.live_graphs > 0) s.retired.push_back(room.p);', 'if (false) s.retired.push_back(room.p);'),
    ('library.cpp', 'else cudaStreamSynchronize(s.stream), cudaFree(room.p);', 'else cudaFree(room.p);'),
    ('library.cpp', 's.active -= room.bytes;', ';'),
    ('library.cpp', 'if (s.capturing) {', 'if (false) {'),
    ('library.cpp', 'if (e != cudaErrorMemoryAllocation) return cuda_error("scratch memory", e), nullptr;', ';'),
    ('library.cpp', 'cudaGetLastError();  // or the next', ';  // or the next'),
    ('library.cpp', '&& s.generation == handle >> SLOT_BITS', ''),
    ('library.cpp', 'if (++slots[slot].generation < GENERATIONS) free_slots', 'if (++slots[slot].generation, true) free_slots'),
    ('library.cpp', 'if (slots[i].p) cudaFree(slots[i].p), remove(i + 1);', 'if (slots[i].p) remove(i + 1);'),
    ('library.cpp', 'if (slots[i].p) cudaFree(slots[i].p), remove(i + 1);', 'if (slots[i].p) cudaFree(slots[i].p), slots[i].p = nullptr;'),
    ('library.cpp', 'fits = fits && !__builtin_mul_overflow(n, s, &n) && n < (uint64_t{1} << 56);', 'n *= s;'),
    ('library.cpp', 'if (us_bytes(t.dtype, LARGEST_BLOCK) == 0)', 'if (false)'),
    ('library.cpp', 'LARGEST_BLOCK = 128 * 128', 'LARGEST_BLOCK = 256'),
    ('library.cpp', 'offset > s->bytes || out.bytes > s->bytes - offset', 'out.bytes > s->bytes - offset'),
    ('library.cpp', 'offset > s->bytes || out.bytes > s->bytes - offset', 'offset > s->bytes'),
    ('library.cpp', 'if (offset % alignment(t.dtype))', 'if (false)'),
    ('library.cpp', 'thread_local char error_text', 'char error_text'),
    ('library.cpp', 'const cudaError_t e = cudaGetLastError();\n  if (e', 'const cudaError_t e = cudaSuccess;\n  if (e'),
    ('device.cpp', 'cudaGetLastError();  // or the next', ';  // or the next'),
    ('device.cpp', 'if (s.capturing) cudaStreamEndCapture(s.stream, &unfinished);', ';'),
    ('device.cpp', 'if (unfinished) cudaGraphDestroy(unfinished);', ';'),
    ('device.cpp', 'if (g.exec) cudaGraphExecDestroy(g.exec), g.exec = nullptr, g.generation++;', 'if (g.exec) cudaGraphExecDestroy(g.exec), g.exec = nullptr;'),
    ('device.cpp', 's.remove_all();', ';'),
    ('device.cpp', 'drop_pending(), profile_drop();', 'drop_pending();'),
    ('device.cpp', 'for (char* p : s.retired) cudaFree(p);\n  if', 'if'),
    ('device.cpp', 'if (s.ring) cudaFreeHost(s.ring);', ';'),
    ('device.cpp', 'if (s.stream) cudaStreamDestroy(s.stream), s.stream = nullptr;', 's.stream = nullptr;'),
    ('device.cpp', 'p.major * 10 + p.minor >= OLDEST', 'true'),
    ('device.cpp', 'if (s.capability < OLDEST) {', 'if (false) {'),
    ('device.cpp', 'if (device >= static_cast<uint32_t>(count)) {', 'if (false) {'),
    ('device.cpp', 'if (static_cast<int>(device) != s.device) {', 'if (false) {'),
    ('device.cpp', 'if (s.opens == 0) return rc;\n', 'if (rc) return rc;\n'),
    ('device.cpp', 'if (s.capturing) return recording("allocate");', ';'),
    ('device.cpp', 'if (s.capturing) return recording("free");', ';'),
    ('device.cpp', 'if (s.capturing) return rc = recording("copy"), nullptr;', ';'),
    ('device.cpp', 'if (s.capturing) return recording("wait");', ';'),
    ('device.cpp', 'if (s.capturing) return recording("free a graph");', ';'),
    ('device.cpp', 'if (s.capturing) return recording("launch a graph");', ';'),
    ('device.cpp', 'const cudaError_t waited = cudaStreamSynchronize(s.stream), freed = cudaFree', 'const cudaError_t waited = cudaSuccess, freed = cudaFree'),
    ('device.cpp', 's.active -= slot->bytes;', ';'),
    ('device.cpp', 'offset > slot->bytes || bytes > slot->bytes - offset', 'offset + bytes > slot->bytes'),
    ('device.cpp', 'if (const int bad = device_status("upload", cudaStreamSynchronize(s.stream))) return bad;', ';'),
    ('device.cpp', 's.ring_at += (bytes + 255) / 256 * 256;', ';'),
    ('device.cpp', 'if (e == cudaSuccess) e = cudaStreamSynchronize(s.stream);\n  }', '}'),
    ('device.cpp', 'if (e == cudaSuccess) e = cudaStreamSynchronize(s.stream);\n  return device_status("download"', 'return device_status("download"'),
    ('device.cpp', 'if (graph) cudaGraphDestroy(graph);', ';'),
    ('device.cpp', 'g->exec = nullptr, g->generation++;', 'g->exec = nullptr;'),
    ('device.cpp', 'for (char* p : s.retired) cudaFree(p);\n    s.retired.clear();', 's.retired.clear();'),
    ('offload.cpp', 'if (e == cudaSuccess) e = cudaStreamWaitEvent(c.stream, c.launched, 0);', ';'),
    ('offload.cpp', 'cudaError_t e = cudaStreamWaitEvent(s.stream, h->copied, 0);', 'cudaError_t e = cudaSuccess;'),
    ('offload.cpp', 'if (e == cudaSuccess) e = cudaEventRecord(h.copied, c.stream);', ';'),
    ('offload.cpp', 'if (h->epoch != copies().epoch) return US_OK;', ';'),
    ('offload.cpp', 'c.apart = false, c.epoch++;\n  return e', 'c.apart = false;\n  return e'),
    ('offload.cpp', 'if (e == cudaSuccess) e = cudaStreamWaitEvent(stream(), c.joined, 0);', ';'),
    ('offload.cpp', 'if (s.live_graphs > 0) c.retired.push_back(h.p), h.p = nullptr;', ';'),
    ('offload.cpp', 'free_retired(c);\n  if (c.launched)', 'if (c.launched)'),
    ('offload.cpp', 'if (const int rc = settle(reads, 1, nullptr, 0)) return rc;', ';'),
    ('offload.cpp', 'if (const int rc = settle(nullptr, 0, writes, 1)) return rc;', ';'),
    ('offload.cpp', 'if (taken) return fail', 'if (false) return fail'),
    ('offload.cpp', 'if (s.capturing) return fail', 'if (false) return fail'),
    ('offload.cpp', 'if (x.bytes > h->bytes)', 'if (false)'),
    ('offload.cpp', 'if (h->filled != out.bytes)', 'if (false)'),
    ('offload.cpp', 'if (h.copied) cudaEventDestroy(h.copied);', ';'),
    ('offload.cpp', 'if (!c.launched && e == cudaSuccess)', 'if (!c.stream && e == cudaSuccess)'),
    ('offload.cpp', 'if (e != cudaErrorMemoryAllocation) return cuda_error("host_slot", e);', ';'),
    ('device.cpp', 'const int joined = join_copies();', 'const int joined = US_OK;'),
    ('device.cpp', 'if ((rc = join_copies())) return nullptr;', ';'),
    ('device.cpp', 'if (s.capturing) return recording("record");\n  if (const int rc = join_copies()) return rc;', 'if (s.capturing) return recording("record");'),
    ('device.cpp', 'if (const int rc = join_copies()) unfinished = unfinished ? unfinished : rc;', ';'),
    ('device.cpp', 'release_copies();', ';'),
    ('profile.cpp', 'if (!running || state().capturing) return;', 'if (!running) return;'),
    ('profile.cpp', '|| flush_pending() || s.capturing) return 0;', '|| flush_pending()) return 0;'),
    ('profile.cpp', 'for (const Mark& m : marks) cudaEventDestroy(m.event);', ';'),
]
REST_GROUPS = ['machines', 'library', 'memory', 'graphs', 'profile', 'offload', 'read', 'read_failures', 'failures', 'threads', 'few_cycles']


def small_ring(text):
    """One that comes round after a few products."""
    return text.replace('size_t{64} << 20', 'size_t{12} << 10').replace('RING / 16', 'RING / 4')


def run(root, work, number, mutant, build, groups, ring=None):
    file, there, slip = mutant
    path = f'{work}/mutant{number}'
    text = open(f'{root}/cuda/host/{file}').read()
    if there not in text:
        return f'MISSED {file}: there is no {there}'
    if ring == 'small':
        text = small_ring(text)
    with open(f'{path}.cpp', 'w') as f:
        f.write(text.replace(there, slip, 1))
    flags = ['-fsanitize=address,undefined', '-O0'] if build == 'asan' else ['-O1']
    here, compiler = os.path.dirname(os.path.abspath(__file__)), os.environ['SANITIZING_CXX'] if build == 'asan' else 'g++'
    try:
        made = subprocess.run([compiler, '-std=c++17', '-w', *flags, f'-I{here}/sim/include', f'-I{root}/cuda/host', '-c', f'{path}.cpp', '-o',
                               f'{path}.o'], capture_output=True, text=True)
        if made.returncode:
            return f'MISSED {file}: {slip} does not compile: {made.stderr[:300]}'
        objects = [f'{work}/{build}/{o}' for o in sorted(os.listdir(f'{work}/{build}'))
                   if o.endswith('.o') and o != f'host_{file}.o']
        if ring == 'small' and file != 'pending_state.cpp':
            objects = [f'{work}/small_ring.o' if o.endswith('host_pending_state.cpp.o') else o for o in objects]
        subprocess.run([compiler, *flags[:1], *objects, f'{path}.o', '-o', path, '-lpthread'], check=True)
        try:
            test = subprocess.run([path, *groups], capture_output=True, timeout=100)
        except subprocess.TimeoutExpired:
            return f'noticed (hangs) {file}: {there}'
        why = (test.stderr + test.stdout).decode(errors='replace').strip().splitlines()
        kind = next((w.split('(')[0][:90] for w in why if w.startswith(('FAKE', 'FAIL', '==', 'SUMMARY')) and len(w) > 70 or 'FAKE' in w or 'FAIL' in w), '')
        return f'noticed {file}: {there} [{kind}]' if test.returncode else f'MISSED {file}: {there} -> {slip}'
    finally:
        for end in ('', '.cpp', '.o'):
            if os.path.exists(path + end):
                os.remove(path + end)


def main(root, work=None):
    programs = ['pending', '1', '1400']
    jobs = [(m, 'plain', programs, 'small') for m in PENDING] + [(m, 'plain', programs) for m in ROOMY] + [(m, 'plain', ['roles']) for m in ROLES]
    jobs += [(m, 'asan', REST_GROUPS) for m in REST]
    if work is None:
        gone = [m for m, *_ in jobs if m[1] not in open(f'{root}/cuda/host/{m[0]}').read()]
        print('\n'.join(f'MISSED {m[0]}: there is no {m[1]}' for m in gone) or f'{len(jobs)} slips fit the sources')
        return bool(gone)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        missed = False
        for line in pool.map(lambda j: run(root, work, j[0], *j[1]), enumerate(jobs)):
            line = ' '.join(line.split())
            print(line, flush=True)
            missed = missed or line.startswith('MISSED')
    return missed


if __name__ == '__main__':
    sys.exit(main(*sys.argv[1:]))
