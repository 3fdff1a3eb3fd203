// The activation with the thin products over its results, as cuda/kernels/glu_sm90.cu gives it.
#include "../../../cuda/kernels/glu_sm90.h"

#include "activation.h"
#include "whole.h"

namespace us {

bool glu_fits_sm90(const GluPass& g) {
  bool fits = has_sm90() && g.act != GELU && g.F % 8 == 0 && g.F >= 72 && g.M >= 16;
  for (int i = 0; i < (g.dh ? 2 : 1); i++) fits = fits && g.thin[i].count == 1 && g.thin[i].r == 16 && g.thin[i].beta == 0 && g.thin[i].K == g.F;
  for (int i = 0; g.dh && i < 3; i++) fits = fits && g.tall[i].count == 1 && g.tall[i].r == 16 && g.tall[i].W == g.F;
  return fits;
}

namespace {

/** Of the whole: what each part reads and writes; gate, up and dh may be written over, each in its own place. */
void check(const GluPass& g, const Cast* casts, int cast_count) {
  Launch l;
  const size_t bytes = g.M * g.F * 2;
  l.read(g.gate, bytes, 0), l.read(g.up, bytes, 1), l.read(g.dh, bytes, 2);
  if (g.dh) l.write(g.d_gate, bytes, 0), l.write(g.d_up, bytes, 1);
  l.write(g.h, bytes, 2);
  limit(!g.to8[1] == !(g.dh && g.to8[0]), "rounding of one gradient alone");
  for (int i = 0; i < 2; i++) l.write(g.to8[i], bytes), l.write(g.scale8[i], g.M * 4);
  for (int i = 0; i < (g.dh ? 2 : 1); i++) {
    const Thin& t = g.thin[i];
    const void* of = !g.dh ? g.h : i == 0 ? g.d_gate : g.d_up;
    limit(!of || t.a == of, "a thin product of another matrix");
    limit(of || g.to8[0], "a result that nobody gets");
    l.read(t.given[0], g.F * 16 * 4), l.write(t.c[0], g.M * 16 * 2), l.write(t.copy[0], g.M * 16 * 2);
  }
  for (int i = 0; g.dh && i < 3; i++) {
    const void* of = i == 0 ? g.d_gate : g.d_up;
    limit(i == 2 || !of || g.tall[i].wide == of, "another matrix's gradient");
    l.read(g.tall[i].thin[0], g.M * 16 * 2), l.write(g.tall[i].out[0], g.F * 16 * 4);
  }
  touch(l, casts, cast_count);
  l.check();
}

void run_all(int dtype, GluPass g) {
  std::vector<uint16_t> spare(g.M * g.F), spare_gate(spare), spare_up(spare);
  const uint16_t *gate = static_cast<const uint16_t*>(g.gate), *up = static_cast<const uint16_t*>(g.up), *dh = static_cast<const uint16_t*>(g.dh);
  uint16_t *h = g.h ? static_cast<uint16_t*>(g.h) : spare.data();
  uint16_t *d_gate = g.d_gate ? static_cast<uint16_t*>(g.d_gate) : spare_gate.data(), *d_up = g.d_up ? static_cast<uint16_t*>(g.d_up) : spare_up.data();
  for (size_t i = 0; i < spare.size(); i++) {
    const uint32_t x = gate[i], y = up[i], d = dh ? dh[i] : 0;
    h[i] = static_cast<uint16_t>(fake::activation(x, y, static_cast<uint32_t>(g.act)));
    if (dh) d_gate[i] = static_cast<uint16_t>(fake::gate_gradient(x, y, d)), d_up[i] = static_cast<uint16_t>(fake::up_gradient(x, y, d));
  }
  for (int i = 0; i < (dh ? 2 : 1); i++) {
    g.thin[i].b[0] = g.thin[i].given[0], g.thin[i].a = !dh ? h : i == 0 ? d_gate : d_up;
    multiply(g.thin[i], dtype, F32, dh != nullptr, g.M);
  }
  for (int i = 0; dh && i < 3; i++) {
    g.tall[i].wide = i == 2 ? h : i == 0 ? d_gate : d_up;
    multiply(g.tall[i], dtype, g.M);
  }
  const uint16_t* rounded[] = {dh ? d_gate : h, d_up};
  for (int i = 0; i < 2; i++)
    if (g.to8[i]) copy_rows(rounded[i], g.to8[i], g.scale8[i], g.M, g.F);
}

}  // namespace

int run_glu_sm90(int dtype, const GluPass& g, const Cast* casts, int cast_count) {
  limit(glu_fits_sm90(g), "an activation that does not fit");
  check(g, casts, cast_count);
  std::vector<Cast> also(casts, casts + cast_count);
  return run("glu", [=] {
    for (const Cast& c : also) round(c, dtype);
    run_all(dtype, g);
  });
}

}  // namespace us
