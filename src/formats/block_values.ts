/** Tables of the values that a 4-bit index stands for. @module */

/** The 16 values of IQ4_NL and IQ4_XS (ggml-common.h, kvalues_iq4nl). */
export const IQ4_VALUES: Int8Array = Int8Array.of(
  ...[-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113],
);

/** The 16 values of NormalFloat4 (Dettmers et al. 2023, appendix E). */
export const NF4_VALUES: Float32Array = Float32Array.of(
  ...[-1, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334],
  ...[-0.09105003625154495, 0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224],
  ...[0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1],
);
