// The Metal Shading Language's standard library, as much of it as our kernels use, for clang++ on a CPU: included by the
// translation unit that tools/msl2cpu.ts writes; the .metal sources are not edited. What is not here fails in the lint;
// what is here must exist in Metal (MSL 3.1 specification).
#pragma once
#pragma clang diagnostic ignored "-Wunknown-attributes"
#pragma clang diagnostic ignored "-Wignored-attributes"
#pragma clang diagnostic ignored "-Wduplicate-decl-specifier"
#include "../runtime/runtime.h"
#include "types.h"
#include "math.h"
#include "simdgroup.h"
#include "matrix.h"
#include "atomic.h"
#include "names.h"
