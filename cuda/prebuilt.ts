/** Written by cuda/build.sh: which sources the prebuilt library was built from, and which file it is. @module */

/** SHA-256 over the SHA-256 of each source, as `cuda/build.sh --hash` prints it. */
export const SOURCES_SHA256 = "2245e517404e38e64e569f421b049977bf70f5de8c67190d9f0c92b97951aa99";
/** SHA-256 of prebuilt/linux-x64/libunsloth_cuda.so. */
export const LIBRARY_SHA256 = "d360c0d508e879a10c3c78be7947062b00d3eeb3d9078fa6f34de9a5a50b7195";
