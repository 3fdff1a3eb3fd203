// What the host hands each kernel besides tensors: one text for both sides. 4- and 8-byte scalars only, the wide ones first,
// so that Metal and C lay the structs out alike (host/*.c assert their sizes).
#ifdef __METAL_VERSION__
typedef uint u32;
typedef int i32;
typedef ulong u64;
#else
#pragma once  // after stdint.h
typedef uint32_t u32;
typedef int32_t i32;
typedef uint64_t u64;
#endif

// Element types: the numbers of the C ABI.
enum { F32 = 0, BF16 = 1, F16 = 2, I32 = 3, U8 = 4, FP8 = 5, Q4_0 = 16, Q4_1 = 17, Q5_0 = 18, Q5_1 = 19, Q8_0 = 20, Q2_K = 21,
       Q3_K = 22, Q4_K = 23, Q5_K = 24, Q6_K = 25, IQ4_NL = 26, IQ4_XS = 27, NF4 = 28 };
enum { SILU = 0, GELU = 1, GELU_TANH = 2 };
enum { RMS = 0, LAYER = 1 };

// Function constants by index; every pipeline sets all of them.
enum { FC_TYPE, FC_OUT, FC_KIND, FC_TRANS_A, FC_TRANS_B, FC_WIDE, FC_WIDE_B, FC_OPTIONAL, FC_COUNT };

struct EachArgs { u64 n, cols; float factor; u32 stream, threshold; i32 integer; };
struct RowArgs { u64 rows, cols; float eps, plus, scale; u32 inner; };
// span: what of K a threadgroup takes, a multiple of 256; splits: how many spans there are.
struct GemmArgs { u64 m, n, k, first_row; float alpha, beta; u32 bias_type, span, splits, unused; };
struct RopeArgs { u32 tokens, heads, d, half_size; float sign, factor; };
struct AttnArgs { u32 N, H, K, d, S, window; float scale, softcap; };
struct CacheArgs { u32 N, H, K, d, S, L, window, unused; float scale, softcap; };
struct LossArgs { u64 vocab; float softcap, smoothing, z, unused; };

// Query and key rows of an attention tile by the bytes of a row of D elements: what 32 KiB of threadgroup memory hold.
#define ATTN_ROWS(bytes) ((bytes) <= 256 ? 32 : (bytes) <= 512 ? 16 : 8)
#define ATTN_KEYS(bytes) ((bytes) <= 128 ? 32 : (bytes) <= 512 ? 16 : 8)
#define ATTN_BWD_KEYS(bytes) ((bytes) <= 128 ? 32 : (bytes) <= 256 ? 16 : 8)
