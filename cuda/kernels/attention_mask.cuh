// Which keys a query sees, and the soft cap, shared by the attention engines.
#pragma once
#include "attention.h"
#include "common.cuh"

namespace us {

/** The last entry of cu [S+1] that is at most n; -1 when there is none. */
__device__ __forceinline__ int sequence_of(const int* cu, int S, int n) {
  int lo = -1, hi = S;
  while (lo < hi) {
    const int mid = (lo + hi + 1) / 2;
    if (cu[mid] <= n) lo = mid;
    else hi = mid - 1;
  }
  return lo;
}

/** First token of the sequence that holds token n. Tokens outside every sequence start past all keys: they see none. */
__device__ __forceinline__ int sequence_start(const int* cu, int S, int n) {
  const int s = sequence_of(cu, S, n);
  return s < 0 || s >= S ? 0x7fffffff : cu[s];
}

/** One past the last token of the sequence that holds token n; n itself outside every sequence. */
__device__ __forceinline__ int sequence_end(const int* cu, int S, int n) {
  const int s = sequence_of(cu, S, n);
  return s < 0 || s >= S ? n : cu[s + 1];
}

/** Causal, within the sequence, within the window. */
__device__ __forceinline__ bool sees(int query, int key, int start, int window) {
  return key <= query && key >= start && (window == 0 || query - key < window);
}

/** First key that any row of a tile of queries from `first` sees. */
__device__ __forceinline__ int first_key(const int* cu, int S, int first, int window) {
  const int s = sequence_of(cu, S, first), start = s < 0 ? cu[0] : s >= S ? 0x7fffffff : cu[s];
  return window > 0 ? max(start, first - window + 1) : start;
}

}  // namespace us
